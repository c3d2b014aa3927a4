"""Does a specialization make an expert? The whole service on real data sets, and a report of what was seen."""
