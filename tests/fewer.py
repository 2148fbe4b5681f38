"""How many sequences a store is asked at random, where others are asked them too."""

from hypothesis import settings

from interpreters.conformance import StoreConformance

FEWER = settings(StoreConformance.machine_settings, max_examples=25)
"""Of a store that is another one in another dress, or with something around it: the other is asked all of them."""
