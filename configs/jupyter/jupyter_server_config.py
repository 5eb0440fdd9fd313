"""JupyterLab behind the platform's proxy, which knows who is there and says so in a header."""

import hmac
from pathlib import Path

from jupyter_server.auth import IdentityProvider, User

_PROXY = Path("/run/millrace/jupyter/proxy").read_text().strip()


class ProxyIdentity(IdentityProvider):
    """Takes the user's name from the proxy, and no one's word but the proxy's.

    Other services share networks with this one: the proxy shows a secret of its own. That is no token of the
    server's, so that its checks against requests from other sites stay in force.
    """

    def get_user(self, handler):
        """The user the proxy logged in."""
        shown = handler.request.headers.get("X-Millrace-Proxy", "")
        name = handler.request.headers.get("X-Forwarded-User", "")
        if not name or not hmac.compare_digest(shown.encode(), _PROXY.encode()):
            return None
        return User(username=name)

    @property
    def login_available(self):
        """The proxy's login is the only one."""
        return False


c = get_config()  # noqa: F821
c.ServerApp.identity_provider_class = ProxyIdentity
c.ProxyIdentity.token = ""
c.ServerApp.ip = "0.0.0.0"
c.ServerApp.port = 8888
c.ServerApp.certfile = "/run/millrace/tls/tls.crt"
c.ServerApp.keyfile = "/run/millrace/tls/tls.key"
# The name is the proxy's; whoever asks under another one lacks its secret.
c.ServerApp.allow_remote_access = True
c.ServerApp.root_dir = "/var/lib/millrace/jupyter/notebooks"
c.ServerApp.quit_button = False
# Kernels of browsers that went away end after a day, and with them their hold on the cluster.
c.MappingKernelManager.cull_idle_timeout = 24 * 3600
c.MappingKernelManager.cull_interval = 600
# Nothing here calls home.
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.news_url = None
c.LabApp.extension_manager = "readonly"
