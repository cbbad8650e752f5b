# Every target prints and runs one line of `python -m launch` (plans, submits, watches) or `python -m textocvp` (works).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VARIABLES := CLUSTER RECIPE EXP SEEDS PRED DECOMP_CKPT RES RERUN WAIT STAGE TASK RANK LINES FOLLOW JSON WATCH TO SET DRY TIMEOUT \
	BASE LOCK TESTS PORT PYTHON
PYTHON ?= python3
PORT ?= 6006

# make would ignore a misspelt variable
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command%,$(origin $v)),$v))
UNKNOWN := $(filter-out $(VARIABLES) MAKEFLAGS SHELL,$(GIVEN))
ifneq ($(UNKNOWN),)
NEAREST := $(shell $(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1, 0.0))' \
	$(firstword $(UNKNOWN)) $(VARIABLES))
$(error unknown variable $(firstword $(UNKNOWN)): did you mean $(NEAREST)? known: $(VARIABLES))
endif

ENV := .venv
LOGIN := .venv-login
ENV_LOCKS := containers/requirements-cpu.lock containers/requirements-dev.lock
LOGIN_LOCK := containers/requirements-login.lock
SCRIPTS := containers/*.sh containers/shims/* slurm/dev_cluster/cluster.sh .ci/run .ci/install-apptainer
hash = $(shell cat $(1) | sha256sum | cut -c1-16)
ENV_READY := $(ENV)/.ready-$(call hash,$(ENV_LOCKS))
LOGIN_READY := $(LOGIN)/.ready-$(call hash,$(LOGIN_LOCK))

# a stage runs here with CLUSTER=local, or without CLUSTER where nothing could be submitted
LOCAL := $(if $(CLUSTER),$(shell grep -qs '^scheduler: *local' cluster_configs/$(CLUSTER).yaml $(CLUSTER) && echo yes),$(if $(shell command -v sbatch),,yes))
READY := $(if $(LOCAL),$(ENV_READY),$(LOGIN_READY))
LAUNCH := $(if $(LOCAL),$(ENV),$(LOGIN))/bin/python -m launch
# views need no torch: any environment will do
ANY_READY := $(if $(wildcard $(ENV_READY)),$(ENV_READY),$(LOGIN_READY))
VIEW := $(if $(wildcard $(ENV_READY)),$(ENV),$(LOGIN))/bin/python -m launch

WHAT = $(if $(RECIPE)$(EXP),$(strip $(if $(RECIPE),--recipe $(RECIPE)) $(if $(EXP),--exp $(EXP))),$(error say RECIPE=experiments/recipes/NAME.yaml or EXP=experiments/NAME))
FLAGS = $(WHAT)$(if $(CLUSTER), --cluster $(CLUSTER))$(if $(SEEDS), --seeds "$(SEEDS)")$(if $(PRED), --pred $(PRED))$(if $(DECOMP_CKPT), --decomp-ckpt $(DECOMP_CKPT))$(if $(RES), --res "$(RES)")$(if $(RERUN), --rerun)$(if $(WAIT), --wait)
EXPERIMENT = $(if $(EXP),--exp $(EXP),$(error say EXP=experiments/NAME))
HERE := $(or $(CLUSTER),local)

.PHONY: help setup demo demo-check smoke pipeline plan train-decomp select-decomp precompute-slots train-predictor \
	evaluate status logs why cancel fork shell verify prune efficiency tensorboard doctor image image-dir cluster-up \
	cluster-down test test-cluster test-container lint lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  variables: $(VARIABLES)"

setup: $(ENV_READY)  ## .venv from the lock (demo, smoke, test, lint and CLUSTER=local do it when needed)

$(ENV_READY): | $(ENV_LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say PYTHON=python3.11")'
	@echo "$(ENV): installing $$(grep -c == containers/requirements-cpu.lock) packages, about 1.7 GB with the CPU build of torch"
	$(PYTHON) -m venv $(ENV)
	$(ENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r containers/requirements-cpu.lock -r containers/requirements-dev.lock
	@rm -f $(ENV)/.ready-*; touch $@

$(LOGIN_READY): | $(LOGIN_LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9) and "error: Python 3.9 or newer is needed, this is " + sys.version.split()[0] + "; say PYTHON=python3.9")'
	$(PYTHON) -m venv $(LOGIN)
	$(LOGIN)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r $(LOGIN_LOCK)
	@rm -f $(LOGIN)/.ready-*; touch $@

demo: $(ENV_READY)  ## [CLUSTER=local] the paper's finding in small: data, SAVi, slots, two predictors, a table (15 minutes)
	@echo "demo: needs 1 GB of disk in experiments/demo, two cores and about 15 minutes; Ctrl-C stops it, make demo continues"
	$(ENV)/bin/python -m launch pipeline --recipe experiments/recipes/demo.yaml --cluster $(HERE) --wait$(if $(RERUN), --rerun)

demo-check: $(ENV_READY)  ## check the demo's figures against the bounds in its recipe
	$(ENV)/bin/python -m textocvp check-summary -d experiments/demo

smoke: $(ENV_READY)  ## [CLUSTER=local] the same pipeline at its smallest (2 minutes)
	$(ENV)/bin/python -m launch pipeline --recipe experiments/recipes/smoke.yaml --cluster $(HERE) --wait$(if $(RERUN), --rerun)

pipeline: $(READY)  ## RECIPE= or EXP= [CLUSTER= RES= WAIT=1 RERUN=1]: everything that is missing, in dependency order
	$(LAUNCH) pipeline $(FLAGS)

plan: $(ANY_READY)  ## RECIPE= or EXP= [CLUSTER=]: stages, edges, resources; submits nothing
	$(VIEW) plan $(FLAGS)

train-decomp: $(READY)  ## EXP= [SEEDS="0 1 2" CLUSTER= RES="nodes=2 time=04:00:00"]: train the decomposition model
	$(LAUNCH) train-decomp $(FLAGS)

select-decomp: $(READY)  ## EXP= [CLUSTER=]: keep the best seed
	$(LAUNCH) select-decomp $(FLAGS)

precompute-slots: $(READY)  ## EXP= [DECOMP_CKPT= CLUSTER=]: write the slot store
	$(LAUNCH) precompute-slots $(FLAGS)

train-predictor: $(READY)  ## EXP= [PRED= SEEDS= DECOMP_CKPT= CLUSTER= RES=]: train the predictors, or one of them
	$(LAUNCH) train-predictor $(FLAGS)

evaluate: $(READY)  ## EXP= [PRED= DECOMP_CKPT= CLUSTER=]: evaluate, draw, report
	$(LAUNCH) evaluate $(FLAGS)

status: $(ANY_READY)  ## EXP= [WATCH=1 JSON=1]: where each task is
	$(VIEW) status $(EXPERIMENT)$(if $(JSON), --json)$(if $(WATCH), --watch)

logs: $(ANY_READY)  ## EXP= STAGE= [TASK=0 RANK=0 LINES=40 FOLLOW=1]: the log of one task
	$(VIEW) logs $(EXPERIMENT) --stage $(or $(STAGE),$(error say STAGE=, for example STAGE=train-decomp)) --task $(or $(TASK),0)$(if $(RANK), --rank $(RANK))$(if $(LINES), --lines $(LINES))$(if $(FOLLOW), --follow)

why: $(ANY_READY)  ## EXP=: what broke first, where, and what to do
	$(VIEW) why $(EXPERIMENT)

cancel: $(ANY_READY)  ## EXP=: cancel its jobs; what is done stays
	$(VIEW) cancel $(EXPERIMENT)

verify: $(ANY_READY)  ## EXP=: hash the outputs of all finished tasks again
	$(VIEW) verify $(EXPERIMENT)

prune: $(ANY_READY)  ## EXP= [DRY=1]: free what is never needed again (states and checkpoints on the way of finished trainings)
	$(VIEW) prune $(EXPERIMENT)$(if $(DRY), --dry)

efficiency: $(ANY_READY)  ## EXP=: requested against used time, memory and cores; what would be enough
	$(VIEW) efficiency $(EXPERIMENT)

fork: $(ANY_READY)  ## EXP= TO= SET="training.lr=0.001" [PRED=]: a variant that takes over what stays the same
	$(VIEW) fork $(EXPERIMENT) --to $(or $(TO),$(error say TO=experiments/NAME)) --set '$(or $(SET),$(error say SET="training.lr=0.001"))'$(if $(PRED), --pred $(PRED))

shell: $(READY)  ## CLUSTER= [EXP= STAGE= TASK=0 RES=]: a shell as the jobs of a stage have it, in the image
	$(LAUNCH) shell --cluster $(HERE)$(if $(EXP), --exp $(EXP))$(if $(STAGE), --stage $(STAGE))$(if $(TASK), --task $(TASK))$(if $(RES), --res "$(RES)")

tensorboard: $(if $(CLUSTER),$(READY),$(ENV_READY))  ## EXP= [CLUSTER= PORT=6006]: curves and pictures of all trainings
	$(if $(CLUSTER),$(LAUNCH),$(ENV)/bin/python -m launch) tensorboard $(EXPERIMENT) --cluster $(HERE) --port $(PORT)

doctor: $(READY)  ## [CLUSTER= EXP= TIMEOUT=120 JSON=1]: check the site, from here and from a compute node
	$(LAUNCH) doctor$(if $(CLUSTER), --cluster $(CLUSTER))$(if $(EXP), --exp $(EXP))$(if $(TIMEOUT), --timeout $(TIMEOUT))$(if $(JSON), --json)

image: $(if $(CLUSTER),$(READY))  ## [BASE= LOCK=cpu|cuda CLUSTER= WAIT=1]: build the image here, or as a job
	$(if $(CLUSTER),$(LAUNCH) image --cluster $(CLUSTER)$(if $(WAIT), --wait),containers/build.sh)$(if $(LOCK), --lock $(LOCK))$(if $(BASE), --base $(BASE))

image-dir: $(if $(CLUSTER),$(READY))  ## [CLUSTER= | LOCK=cpu|cuda]: unpack the image: starts faster, and needs no FUSE on the nodes
	$(if $(CLUSTER),$(LAUNCH) image --cluster $(CLUSTER) --unpack,containers/unpack.sh .images/textocvp-$(or $(LOCK),cpu)-$$(containers/build.sh --lock $(or $(LOCK),cpu) --key).sif)

cluster-up:  ## start a real one-host Slurm with accounting (CLUSTER=dev_cluster)
	slurm/dev_cluster/cluster.sh start

cluster-down:  ## stop it
	slurm/dev_cluster/cluster.sh stop

test: $(ENV_READY)  ## all tests that need no cluster [TESTS=tests/slurm]
	$(ENV)/bin/python -m pytest -q -m "not cluster and not container" $(TESTS)

test-cluster: $(ENV_READY)  ## tests on a real Slurm, which they start themselves
	$(ENV)/bin/python -m pytest -q -m "cluster and not container" $(TESTS)

test-container: $(ENV_READY)  ## tests in a real image, on a real Slurm too; they build it where it is not there
	$(ENV)/bin/python -m pytest -q -m container $(TESTS)

lint: $(ENV_READY)  ## ruff (rules and format), mypy, shellcheck
	$(ENV)/bin/ruff check .
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/mypy
	$(ENV)/bin/shellcheck $(SCRIPTS)

lock: $(ENV_READY)  ## write the lock files from what .venv holds
	$(ENV)/bin/python containers/lock.py

clean:  ## remove caches (not environments, not experiments)
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .mypy_cache
