# Every target prints and runs one command: `python -m launch` (plans, submits, watches) or `python -m textocvp` (computes).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VARIABLES := CLUSTER RECIPE EXP SEEDS PRED DECOMP_CKPT RES RERUN WAIT STAGE TASK RANK LINES FOLLOW JSON WATCH TO SET DRY TIMEOUT \
	BASE LOCK TESTS PORT PYTHON
PYTHON ?= python3
PORT ?= 6006

# make would silently ignore a misspelt variable
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

# stages run on this machine with CLUSTER=local, or without CLUSTER if there is no sbatch
LOCAL := $(if $(CLUSTER),$(shell grep -qs '^scheduler: *local' cluster_configs/$(CLUSTER).yaml $(CLUSTER) && echo yes),$(if $(shell command -v sbatch),,yes))
READY := $(if $(LOCAL),$(ENV_READY),$(LOGIN_READY))
LAUNCH := $(if $(LOCAL),$(ENV),$(LOGIN))/bin/python -m launch
# status, logs and plan need no torch: either environment works
ANY_READY := $(if $(wildcard $(ENV_READY)),$(ENV_READY),$(LOGIN_READY))
VIEW := $(if $(wildcard $(ENV_READY)),$(ENV),$(LOGIN))/bin/python -m launch

WHAT = $(if $(RECIPE)$(EXP),$(strip $(if $(RECIPE),--recipe $(RECIPE)) $(if $(EXP),--exp $(EXP))),$(error set RECIPE=experiments/recipes/NAME.yaml or EXP=experiments/NAME))
FLAGS = $(WHAT)$(if $(CLUSTER), --cluster $(CLUSTER))$(if $(SEEDS), --seeds "$(SEEDS)")$(if $(PRED), --pred $(PRED))$(if $(DECOMP_CKPT), --decomp-ckpt $(DECOMP_CKPT))$(if $(RES), --res "$(RES)")$(if $(RERUN), --rerun)$(if $(WAIT), --wait)
EXPERIMENT = $(if $(EXP),--exp $(EXP),$(error set EXP=experiments/NAME))
HERE := $(or $(CLUSTER),local)

.PHONY: help setup demo demo-check smoke pipeline plan train-decomp select-decomp precompute-slots train-predictor \
	evaluate status logs why cancel fork shell verify prune efficiency tensorboard doctor image image-dir cluster-up \
	cluster-down test test-cluster test-container lint lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  variables: $(VARIABLES)"

setup: $(ENV_READY)  ## create .venv from the lock files (demo, smoke, test, lint and CLUSTER=local do it when needed)

$(ENV_READY): | $(ENV_LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is required, found " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	@echo "$(ENV): installing $$(grep -c == containers/requirements-cpu.lock) packages, about 1.7 GB with the CPU build of torch"
	$(PYTHON) -m venv $(ENV)
	$(ENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r containers/requirements-cpu.lock -r containers/requirements-dev.lock
	@rm -f $(ENV)/.ready-*; touch $@

$(LOGIN_READY): | $(LOGIN_LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9) and "error: Python 3.9 or newer is required, found " + sys.version.split()[0] + "; set PYTHON=python3.9")'
	$(PYTHON) -m venv $(LOGIN)
	$(LOGIN)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r $(LOGIN_LOCK)
	@rm -f $(LOGIN)/.ready-*; touch $@

demo: $(ENV_READY)  ## [CLUSTER=local]: a small version of the paper's experiment: data, SAVi, slots, two predictors, a table (15 minutes)
	@echo "demo: needs 1 GB of disk in experiments/demo, two cores and about 15 minutes; Ctrl-C stops it, make demo continues it"
	$(ENV)/bin/python -m launch pipeline --recipe experiments/recipes/demo.yaml --cluster $(HERE) --wait$(if $(RERUN), --rerun)

demo-check: $(ENV_READY)  ## compare the demo's results with the bounds in its recipe
	$(ENV)/bin/python -m textocvp check-summary -d experiments/demo

smoke: $(ENV_READY)  ## [CLUSTER=local]: the smallest pipeline (2 minutes)
	$(ENV)/bin/python -m launch pipeline --recipe experiments/recipes/smoke.yaml --cluster $(HERE) --wait$(if $(RERUN), --rerun)

pipeline: $(READY)  ## RECIPE= or EXP= [CLUSTER= RES= WAIT=1 RERUN=1]: run or submit all missing tasks, in dependency order
	$(LAUNCH) pipeline $(FLAGS)

plan: $(ANY_READY)  ## RECIPE= or EXP= [CLUSTER=]: show stages, edges and resources; submit nothing
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

status: $(ANY_READY)  ## EXP= [WATCH=1 JSON=1]: show the state of each task
	$(VIEW) status $(EXPERIMENT)$(if $(JSON), --json)$(if $(WATCH), --watch)

logs: $(ANY_READY)  ## EXP= STAGE= [TASK=0 RANK=0 LINES=40 FOLLOW=1]: show the log of one task
	$(VIEW) logs $(EXPERIMENT) --stage $(or $(STAGE),$(error set STAGE=, for example STAGE=train-decomp)) --task $(or $(TASK),0)$(if $(RANK), --rank $(RANK))$(if $(LINES), --lines $(LINES))$(if $(FOLLOW), --follow)

why: $(ANY_READY)  ## EXP=: show what failed first, where, and how to fix it
	$(VIEW) why $(EXPERIMENT)

cancel: $(ANY_READY)  ## EXP=: cancel its jobs; finished outputs stay
	$(VIEW) cancel $(EXPERIMENT)

verify: $(ANY_READY)  ## EXP=: hash the outputs of all finished tasks again
	$(VIEW) verify $(EXPERIMENT)

prune: $(ANY_READY)  ## EXP= [DRY=1]: remove files that are no longer needed (intermediate states and checkpoints of finished trainings)
	$(VIEW) prune $(EXPERIMENT)$(if $(DRY), --dry)

efficiency: $(ANY_READY)  ## EXP=: compare requested and used time, memory and cores; suggest resources
	$(VIEW) efficiency $(EXPERIMENT)

fork: $(ANY_READY)  ## EXP= TO= SET="training.lr=0.001" [PRED=]: create a variant that reuses unchanged stages
	$(VIEW) fork $(EXPERIMENT) --to $(or $(TO),$(error set TO=experiments/NAME)) --set '$(or $(SET),$(error set SET="training.lr=0.001"))'$(if $(PRED), --pred $(PRED))

shell: $(READY)  ## CLUSTER= [EXP= STAGE= TASK=0 RES=]: open a shell in the image, with the environment and resources of a stage
	$(LAUNCH) shell --cluster $(HERE)$(if $(EXP), --exp $(EXP))$(if $(STAGE), --stage $(STAGE))$(if $(TASK), --task $(TASK))$(if $(RES), --res "$(RES)")

tensorboard: $(if $(CLUSTER),$(READY),$(ENV_READY))  ## EXP= [CLUSTER= PORT=6006]: serve curves and pictures of all trainings in TensorBoard
	$(if $(CLUSTER),$(LAUNCH),$(ENV)/bin/python -m launch) tensorboard $(EXPERIMENT) --cluster $(HERE) --port $(PORT)

doctor: $(READY)  ## [CLUSTER= EXP= TIMEOUT=120 JSON=1]: check the site, from here and from a compute node
	$(LAUNCH) doctor$(if $(CLUSTER), --cluster $(CLUSTER))$(if $(EXP), --exp $(EXP))$(if $(TIMEOUT), --timeout $(TIMEOUT))$(if $(JSON), --json)

image: $(if $(CLUSTER),$(READY))  ## [BASE= LOCK=cpu|cuda CLUSTER= WAIT=1]: build the image on this machine, or as a job
	$(if $(CLUSTER),$(LAUNCH) image --cluster $(CLUSTER)$(if $(WAIT), --wait),containers/build.sh)$(if $(LOCK), --lock $(LOCK))$(if $(BASE), --base $(BASE))

image-dir: $(if $(CLUSTER),$(READY))  ## [CLUSTER= | LOCK=cpu|cuda]: unpack the image, so that it starts faster and needs no FUSE on the nodes
	$(if $(CLUSTER),$(LAUNCH) image --cluster $(CLUSTER) --unpack,containers/unpack.sh .images/textocvp-$(or $(LOCK),cpu)-$$(containers/build.sh --lock $(or $(LOCK),cpu) --key).sif)

cluster-up:  ## start a real one-host Slurm with accounting (CLUSTER=dev_cluster)
	slurm/dev_cluster/cluster.sh start

cluster-down:  ## stop it
	slurm/dev_cluster/cluster.sh stop

test: $(ENV_READY)  ## [TESTS=tests/slurm]: run all tests that need no cluster
	$(ENV)/bin/python -m pytest -q -m "not cluster and not container" $(TESTS)

test-cluster: $(ENV_READY)  ## run the tests on a real Slurm, which they start themselves
	$(ENV)/bin/python -m pytest -q -m "cluster and not container" $(TESTS)

test-container: $(ENV_READY)  ## run the tests in a real image, also on a real Slurm; they build the image if it does not exist
	$(ENV)/bin/python -m pytest -q -m container $(TESTS)

lint: $(ENV_READY)  ## run ruff (rules and format), mypy and shellcheck
	$(ENV)/bin/ruff check .
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/mypy
	$(ENV)/bin/shellcheck $(SCRIPTS)

lock: $(ENV_READY)  ## write the lock files from the packages in .venv
	$(ENV)/bin/python containers/lock.py

clean:  ## remove caches (not environments, not experiments)
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .mypy_cache
