"""HTTP in, HTTP out. Every answer comes from a service; nothing here knows the database, the engine or the broker."""
