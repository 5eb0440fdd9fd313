"""Millrace's own Pulumi provider: what a Docker engine's provider leaves out.

``millrace:docker:Image``        builds an image by the engine's BuildKit, or pulls it
``millrace:docker:Ready``        waits for a container's probe and fails fast with its last log lines
``millrace:docker:Job``          runs a container to its end
``millrace:docker:Network``      makes a network with an address range that is free on the engine
``millrace:docker:VolumeOwner``  gives a volume to a non-root user
``millrace:core:Former``         remembers what a value was before
``millrace:core:Kept``           keeps a value until something else changes
``millrace:host:Ready``          waits for a host that the program made to be set up

A dynamic resource would do the same, but its errors are Python tracebacks, its code is in the state, and it
serves four calls at a time.
"""

VERSION = "0.1.0"
