"""Millrace's library of Pulumi components: settings, workloads, targets, services and the proxy."""
