"""The edge of the platform: the reverse proxy that publishes every route, and the portal that lists them."""

from components.proxy.edge import Edge
from components.proxy.provided import check_provided

__all__ = ["Edge", "check_provided"]
