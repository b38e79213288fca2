"""The name under which custom ops are registered; every generated package has one of its own in place of this file."""

NAMESPACE = "archc_runtime"
