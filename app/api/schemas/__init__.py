"""What the API's bodies look like, with the worked examples Swagger shows."""
