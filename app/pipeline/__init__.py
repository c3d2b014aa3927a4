"""The walk, one file for each thing it makes. Pure: records in, records out; no torch, SQL, HTTP or clock."""
