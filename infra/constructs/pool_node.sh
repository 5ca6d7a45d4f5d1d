#!/bin/bash
# Starts vLLM on a fresh node, tells the fleet when it is ready, and lets streams end before the node goes.
set -euo pipefail

metadata() {
  local token
  token=$$(curl -sf -X PUT http://169.254.169.254/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 300')
  curl -sf -H "X-aws-ec2-metadata-token: $$token" "http://169.254.169.254/latest/meta-data/$$1"
}

complete() { # hook, result
  aws autoscaling complete-lifecycle-action --region '$region' --auto-scaling-group-name '$fleet' \
    --instance-id "$$(metadata instance-id)" --lifecycle-hook-name "$$1" --lifecycle-action-result "$$2"
}

trap 'complete launch ABANDON' ERR

# What decides inside vLLM who is let in, and the digests of the keys that are good now, which it reads.
own=/var/lib/isochrone
mkdir -p "$$own"
cat >"$$own/isochrone_guard.py" <<'GUARD'
$guard
GUARD

version() { # region, stage: key and time of creation of that version of the secret
  aws secretsmanager get-secret-value --region "$$1" --secret-id '$secret' --version-stage "$$2" \
    --query '[SecretString, CreatedDate]' --output text 2>/dev/null
}

# The current key, the one that is about to follow it, and for some time the one before: edges learn of it later.
refresh_keys() { # region
  local current created pending='' previous='' key
  read -r current created < <(version "$$1" AWSCURRENT) || return 1
  pending=$$(version "$$1" AWSPENDING) || true
  if [ $$(($$(date +%s) - $$(date -d "$$created" +%s))) -lt $grace_seconds ]; then
    previous=$$(version "$$1" AWSPREVIOUS) || true
  fi
  for key in "$$current" $${pending%%[[:space:]]*} $${previous%%[[:space:]]*}; do
    printf %s "$$key" | sha256sum | cut -c1-64
  done >"$$own/keys.new"
  mv "$$own/keys.new" "$$own/keys"
}

# Where the secret is rotated all of this is known first; its copy here is for a day on which that region is away.
refresh_keys '$home' || refresh_keys '$region'

# The instance store is fast and empty; weights and compiled kernels need not survive the node.
cache=/opt/dlami/nvme/cache
mkdir -p "$$cache"

docker_image=vllm/vllm-openai:$version
timeout $pull_seconds docker pull --quiet "$$docker_image"

docker run --detach --name vllm --restart unless-stopped --gpus all --ipc host --publish $port:$port \
  --volume "$$cache:/root/.cache" --volume "$$own:/opt/isochrone:ro" --env PYTHONPATH=/opt/isochrone \
  --env VLLM_HTTP_TIMEOUT_KEEP_ALIVE=$keep_alive \
  --log-driver awslogs --log-opt awslogs-region='$region' --log-opt awslogs-group='$log_group' \
  --log-opt awslogs-stream="$$(metadata instance-id)" \
  "$$docker_image" \
  '$model' --dtype half $quantization --attention-backend TRITON_ATTN \
  --max-model-len $max_model_len --max-num-seqs $max_num_seqs --gpu-memory-utilization 0.9 --port $port \
  --middleware isochrone_guard.Guard

healthy() { curl -sf --max-time 5 -o /dev/null http://127.0.0.1:$port/health; }

# Boot, pull and this wait together stay below the launch hook: a node that cannot start says so itself.
deadline=$$((SECONDS + $load_seconds))
until healthy; do
  [ "$$SECONDS" -lt "$$deadline" ]
  sleep 5
done
# Nobody waits for the word of a node that joined without the hook (one that was taken out and put back).
complete launch CONTINUE || true
trap - ERR

keep_keys() {
  while sleep $refresh_seconds; do refresh_keys '$home' || true; done
}
keep_keys &

# The load balancer sends no new requests by the time the fleet asks for the node; wait for those that run.
let_go() {
  until [ "$$(metadata autoscaling/target-lifecycle-state || true)" = Terminated ]; do sleep 5; done
  for _ in $$(seq 20); do
    [ "$$(curl -sf http://127.0.0.1:$port/metrics | awk '/^vllm:num_requests_running/ { n += $$NF } END { print n + 0 }')" = 0 ] && break
    sleep 5
  done
  complete terminate CONTINUE
}
let_go &
