"""Everything that touches torch: the base, adapter slots, decoding, training; and the fake engine, which does not."""
