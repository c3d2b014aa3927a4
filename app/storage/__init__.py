"""What outlives the process: the database behind a unit of work, the artifact store and the job queue."""
