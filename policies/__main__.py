"""``policies/run ENGINE_ADDRESS``: serves the pack and prints its port."""

from policies.analyzer import serve
from policies.pack import RULES

serve("millrace", RULES)
