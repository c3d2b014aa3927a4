"""The vocabulary every other room shares: records, recipe, states, ports, errors. No torch, SQL or HTTP."""
