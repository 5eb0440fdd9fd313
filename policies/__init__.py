"""The policy pack: rules that every preview and `up` of the project is held to. See docs/policies.md."""
