#!/usr/bin/env bash
# Make the environment of the current Kubeflow SDKs. The Katib SDK caps protobuf below 5, which the
# others do not admit; its models and messages work under protobuf 6, so it comes in a second step.
set -euo pipefail
python=${1:-python3.11} venv=${2:-.venv-current}
echo "Setting up $venv (a minute or two the first time)…"
"$python" -m venv --clear "$venv"
extras='training,kserve,s3,datasets,sql,torch,onnx,server,local,reports,demo,dev'
"$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints-current.txt -e ".[$extras]"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps kubeflow-katib==0.19.0
touch "$venv/.done"
