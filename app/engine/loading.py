"""One model is loaded at a time in a process.

While transformers loads, it replaces ``tie_weights`` of every model by a function that does nothing. Two loads that
overlap put the replacement back instead of the original, and models made afterwards keep heads without weights.
"""

from __future__ import annotations

import threading

ONE_AT_A_TIME = threading.Lock()
