"""Serves rules to the Pulumi engine by way of pulumi-policy.

Two things the engine tells are dropped by pulumi-policy 1.21 before a rule sees them: which values are
secret, and the stack's configuration. Its servicer is extended here to pass them on; the rest of the protocol
stays its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi_policy
from pulumi.runtime import proto
from pulumi_policy import policy as library
from typing_extensions import override

from policies.rules import Resource, Rule, Stack, stack_of
from policies.secrecy import leaks
from policies.values import from_struct

_LEAKS = "no-plain-secrets-anywhere"

_Servicer: Any = library._PolicyAnalyzerServicer


def serve(name: str, rules: Sequence[Rule]) -> None:
    """Serve a pack of these rules, all mandatory, until the engine goes away."""
    served = {rule.name: rule for rule in rules}

    class Servicer(_Servicer):  # type: ignore[misc]
        """Decodes each resource once, with its marks, and shows it to the rules for its type."""

        def __init__(self, name: str, version: str, policies: list[pulumi_policy.Policy], *more: Any) -> None:
            super().__init__(name, version, policies, *more)
            self.policies = policies
            self.stack = Stack()

        @override
        def ConfigureStack(self, request: Any, context: Any) -> Any:
            self.stack = stack_of(request.stack, request.config, frozenset(request.config_secret_keys))
            return super().ConfigureStack(request, context)

        @override
        def Analyze(self, request: Any, context: Any) -> Any:
            response = proto.AnalyzeResponse()
            resource = _resource(request)
            for policy in self.policies:
                rule = served.get(policy.name)
                if rule is None or (rule.types is not None and resource.type not in rule.types):
                    continue
                if report := self._reporter(response, policy):
                    for text in rule.check(resource, self.stack):
                        report(f"{resource.name} {text}", resource.urn)
            return response

        @override
        def AnalyzeStack(self, request: Any, context: Any) -> Any:
            response = proto.AnalyzeResponse()
            (policy,) = [policy for policy in self.policies if policy.name == _LEAKS]
            if report := self._reporter(response, policy):
                for urn, text in leaks(map(_resource, request.resources)):
                    report(f"{urn.rpartition('::')[2]} {text}", urn)
            return response

        def _reporter(self, response: Any, policy: pulumi_policy.Policy) -> Any:
            """Takes what is wrong; None when the policy is switched off."""
            level = self._get_enforcement_level(policy)
            if level is pulumi_policy.EnforcementLevel.DISABLED:
                return None
            return self._create_report_violation(
                response, policy.name, policy.description, level, policy.severity
            )

    library._PolicyAnalyzerServicer = Servicer  # type: ignore[assignment,misc]
    pulumi_policy.PolicyPack(name, _policies(rules), pulumi_policy.EnforcementLevel.MANDATORY)


def _resource(request: Any) -> Resource:
    return Resource(
        type=request.type,
        name=request.name,
        props=from_struct(request.properties),
        urn=request.urn,
        protect=request.options.protect,
    )


def _policies(rules: Sequence[Rule]) -> list[pulumi_policy.Policy]:
    """The rules as pulumi-policy lists them; they are run by the servicer above."""
    listed: list[pulumi_policy.Policy] = [
        pulumi_policy.ResourceValidationPolicy(rule.name, rule.description, lambda args, report: None)
        for rule in rules
    ]
    return [
        *listed,
        pulumi_policy.StackValidationPolicy(
            _LEAKS, "No secret of one resource stands in plain at another.", lambda args, report: None
        ),
    ]
