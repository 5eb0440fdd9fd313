"""GitLab's child pipeline with the jobs of each environment; .gitlab-ci.yml starts it.

GitLab has no list of jobs that is made at run time, so the jobs are written: a new environment needs no
change of the pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

_HEAD = """\
# Written by `scripts/run environments --gitlab`.
workflow:
  rules:
    - when: always

stages: [look, tell, deploy]

default:
  tags: [millrace]

variables:
  GIT_CLEAN_FLAGS: -ffdx -e .millrace/toolchain -e .millrace/go -e .venv
"""

_GIVEN = {
    "MILLRACE_EVENT": "CI_PIPELINE_SOURCE",
    "MILLRACE_MERGE_REQUEST": "CI_MERGE_REQUEST_IID",
    # They differ for a fork, which gets no secrets.
    "MILLRACE_FROM_PROJECT": "CI_MERGE_REQUEST_SOURCE_PROJECT_ID",
    "MILLRACE_TO_PROJECT": "CI_MERGE_REQUEST_PROJECT_ID",
}
"""What the child pipeline knows of the one that starts it. It stands in the file: handed over by the trigger
it would count as a pipeline variable, which new projects let nobody set."""

_PREVIEW = """
"preview:{stack}":
  stage: look
  timeout: 30 minutes
  interruptible: true
  rules:
    - if: {rule}
{environment}  script:
    - make preview STACK={stack}
  artifacts:
    when: always
    paths: [".millrace/preview/{stack}.json"]
    expire_in: 1 week
"""

# Its variables are those of an environment of its own: what a preview needs to read.
_READS = """\
  environment:
    name: {stack}-preview
    action: access
"""

_REQUEST = '$MILLRACE_EVENT == "merge_request_event"'
_TRUSTED = f"{_REQUEST} && $MILLRACE_FROM_PROJECT == $MILLRACE_TO_PROJECT"

_DRIFT = """
"drift:{stack}":
  stage: look
  timeout: 30 minutes
  rules:
    - if: $MILLRACE_EVENT == "schedule"
  environment:
    name: {stack}-preview
    action: access
  script:
    - scripts/run drift --stack {stack}
  artifacts:
    when: always
    paths: [".millrace/drift/{stack}.json"]
    expire_in: 1 week
"""

# After a merge, once somebody has started it; the protected environment of this name says who may.
_UP = """
"up:{stack}":
  stage: deploy
  timeout: 2 hours
  interruptible: false
  rules:
    - if: $MILLRACE_EVENT == "push"
      when: manual
  environment:
    name: {stack}
  resource_group: {stack}
  script:
    - make up STACK={stack}
"""

_TELL = """
{what}:
  stage: tell
  timeout: 10 minutes
  rules:
    - if: {rule}
      when: always
  script:
    - scripts/run comment {what}
"""


def pipeline(stacks: Sequence[str], deployed: Sequence[str], given: Mapping[str, str]) -> str:
    """The pipeline as YAML: all stacks are previewed, those on hosts of their own deployed too.

    ``given`` are the variables of the job that asks.
    """
    known = {name: given.get(source, "") for name, source in _GIVEN.items()}
    parts = [_HEAD, *(f"  {name}: {json.dumps(value)}\n" for name, value in known.items())]
    for stack in stacks:
        own = stack in deployed
        parts.append(
            _PREVIEW.format(
                stack=stack,
                rule=_TRUSTED if own else _REQUEST,
                environment=_READS.format(stack=stack) if own else "",
            )
        )
    for stack in deployed:
        parts += [_DRIFT.format(stack=stack), _UP.format(stack=stack)]
    parts.append(_TELL.format(what="preview", rule=_TRUSTED))
    if deployed:
        parts.append(_TELL.format(what="drift", rule='$MILLRACE_EVENT == "schedule"'))
    else:
        # A pipeline must not be empty: with nothing to deploy, a push and a night have no job.
        parts.append(_NOTHING)
    return "".join(parts)


_NOTHING = """
nothing-to-deploy:
  stage: look
  rules:
    - if: $MILLRACE_EVENT != "merge_request_event"
  script:
    - echo "No environment is on a host of its own."
"""
