"""What a client is told when a request can't be served: a status, an error code and a message."""

from __future__ import annotations


class ApiError(Exception):
    """An answer that is no success. The client sees the message: nothing of the inside belongs in it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> ApiError:
    """A parameter that can't be meant."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def malformed(message: str) -> ApiError:
    """A request that is not of the protocol's form."""
    return ApiError(400, "MALFORMED_REQUEST", message)


def unsupported(message: str) -> ApiError:
    """Something that the table, this server or the client has no support for."""
    return ApiError(400, "UNSUPPORTED_OPERATION", message)


def not_found(message: str) -> ApiError:
    """No such thing, or none that the recipient may know of."""
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", message)


def unauthenticated(message: str) -> ApiError:
    """No token, or one that is not valid (any more)."""
    return ApiError(401, "UNAUTHENTICATED", message)
