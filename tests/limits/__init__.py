"""What the real engine must bear: thousands of requests, storms of callers who leave, promotion under load."""
