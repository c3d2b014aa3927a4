"""How fast the service answers, and how fast its peers do, with the same client, model and machine."""
