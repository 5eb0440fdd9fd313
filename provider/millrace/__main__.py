"""``pulumi-resource-millrace ENGINE_ADDRESS``: serves the provider and prints its port."""

import sys

from millrace.server import serve

serve(sys.argv[1] if len(sys.argv) > 1 else None)
