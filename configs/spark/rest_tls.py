"""TLS in front of the master's REST server, which speaks plain HTTP and listens on the loopback only."""

import asyncio
import ssl

LISTEN = 6066
UPSTREAM = 6067
TLS = "/run/millrace/tls"
BLOCK = 1 << 16


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until the sender is done."""
    try:
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
    finally:
        writer.close()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", UPSTREAM)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer), return_exceptions=True)


async def main() -> None:
    """Serve until the container ends."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(f"{TLS}/tls.crt", f"{TLS}/tls.key")
    server = await asyncio.start_server(serve, "0.0.0.0", LISTEN, ssl=context)
    async with server:
        await server.serve_forever()


asyncio.run(main())
