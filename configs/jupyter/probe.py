"""Asks the server for its version over verified TLS."""

import ssl
import urllib.request

context = ssl.create_default_context(cafile="/run/millrace/tls/ca.crt")
urllib.request.urlopen("https://localhost:8888/api", timeout=8, context=context).read()
