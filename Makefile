# make help lists the targets. What they need beside Go, git and make is a module in hack/tools/go.mod.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE ?= eventflow:$(VERSION)
IMAGE_REPOSITORY ?= ghcr.io/clinikapi/eventflow
CONTAINER_TOOL ?= docker
KUBECTL ?= kubectl
CLUSTER ?=
RUNFLAGS ?=
# Never from the cache: some suites run the binary, which the cache knows nothing of.
TESTFLAGS ?= -count=1 -timeout 25m
STORE ?= embedded
SOAKFOR ?= 1h
SIMULATEFOR ?= 10m
SEED ?= $(shell date +%s)
BENCHFLAGS ?= -json=bin/bench/result.json
SCALEFLAGS ?= -json=bin/bench/scale.json

tool = go tool -modfile=hack/tools/go.mod
modules = $(patsubst %/go.mod,%,$(shell git ls-files 'go.mod' '*/go.mod' | sed 's,^go.mod,./go.mod,'))

##@ Develop

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: generate
generate: ## Generate deepcopy functions, CRDs, RBAC, the chart's part of them, the panel's pages, three pages of docs/, and Argo CD's fixtures
	$(tool) controller-gen object paths=./api/...
	$(tool) controller-gen crd paths=./api/v1alpha1/... output:crd:dir=config/crd/bases
	$(tool) controller-gen rbac:roleName=eventflow-manager paths=./controllers/... output:rbac:dir=config/rbac
	go run -C hack/release ./chart generate
	$(tool) crd-ref-docs --log-level=ERROR --source-path=api/v1alpha1 --config=hack/tools/api-reference/config.yaml \
	  --templates-dir=hack/tools/api-reference --renderer=markdown --output-path=docs/api-reference.md
	$(tool) templ generate -path console/view -log-level=error
	go test -count=1 -run AreDocumented ./controllers/subscription ./controllers/dispatcher ./controllers/replay ./controllers/metrics ./dispatcher ./dispatcher/status -update
	go test -count=1 -run AreDocumented ./config/argocd -update

.PHONY: lint
lint: bin/golangci-lint bin/vale ## Check style, the order of packages, the API's conventions and the English
	go tool -modfile=hack/actionlint/go.mod actionlint
	cd hack/release && ../../bin/golangci-lint run ./...
	bin/golangci-lint run ./...
	bin/vale --output=line *.md docs $$(git ls-files '*.go' ':!*zz_generated*' ':!*/testdata/*')
	@[[ $$(bin/vale --output=line --no-exit hack/vale/testdata | cut -d: -f4 | sort -u | wc -l) == 4 ]] || \
	  { echo "vale does not find each kind of sentence in hack/vale/testdata"; exit 1; }

.PHONY: vulnerabilities
vulnerabilities: ## Look up known vulnerabilities of what the program calls
	$(tool) govulncheck ./...

.PHONY: fmt
fmt: bin/golangci-lint ## Format the code
	bin/golangci-lint fmt ./...

.PHONY: bin/golangci-lint
bin/golangci-lint:
	@go build -C hack/tools -o ../../bin/golangci-lint ./golangci-lint

.PHONY: bin/vale
bin/vale:
	@go build -C hack/vale -o ../../bin/vale github.com/errata-ai/vale/v3/cmd/vale

.PHONY: verify
verify: generate ## Check that what is generated, and every go.mod, is committed and current
	@for module in $(modules); do \
	  (cd $$module && go mod tidy -diff) || { echo "$$module: run go mod tidy"; exit 1; }; \
	done
	@changes=$$(git status --porcelain); \
	if [[ -n $$changes ]]; then git --no-pager diff; echo "commit what make generate changed:"; echo "$$changes"; exit 1; fi

##@ Test

# With the race detector, what has goroutines of its own; without, what drives processes, and what tests long and alone
# there (testing.Short). Of the database's suite, those are the tests that are called TestUnraced.
raced = ./api/... ./cli/... ./console/... ./controllers/... ./dispatcher/...
plain = $$(go list ./... | grep -vE '^github.com/clinikapi/eventflow/(api|cli|console|controllers|dispatcher)(/|$$)') \
  ./dispatcher/expression ./dispatcher/store/pebble

.PHONY: test
test: ## Run the unit tests, and the envtest suites against a real API server
	@mkdir -p bin; assets=$$(hack/controlplane/assets); \
	export KUBEBUILDER_ASSETS=$$assets; \
	go test $(TESTFLAGS) -race -short -covermode=atomic -coverprofile=cover.out $(raced); \
	go test $(TESTFLAGS) -covermode=atomic -coverprofile=bin/cover.out $(plain); \
	go test $(TESTFLAGS) -run=^TestUnraced ./dispatcher/store/postgres; \
	tail -n +2 bin/cover.out >>cover.out
	@go tool cover -func=cover.out | awk '$$1 == "total:" { print "coverage of all packages: " $$3 }'
	@$(MAKE) receivers

.PHONY: chart
chart: ## Test the Helm chart, and compare it with config/
	go test -C hack/release -count=1 ./chart

.PHONY: alerts
alerts: ## Test the alerts and the dashboard of config/components/monitoring with Prometheus' rule engine
	go test -C hack/monitoring -count=1 .

.PHONY: receivers
receivers: ## Test the receivers in Node and Python
	python3 -m unittest discover -s receivers/python
	cd receivers/node && npm ci --ignore-scripts --no-audit --no-fund --prefer-offline && npm test

.PHONY: console-test
console-test: ## Test the Webhooks panel in Chromium, against a control plane on this machine; about 5 minutes
	hack/browser/test

.PHONY: bench
bench: ## Measure a dispatcher against this machine's raw limit (STORE=embedded|postgres, BENCHFLAGS=-help)
	CGO_ENABLED=0 go run ./hack/bench -store=$(STORE) $(BENCHFLAGS)

.PHONY: soak
soak: ## Let tenants misbehave in every way for an hour (SOAKFOR), with kill -9 every 7 minutes, and audit what arrived
	CGO_ENABLED=0 go run ./hack/bench -strict -scenarios=soak -for=$(SOAKFOR) -kill-every=7m -json=bin/bench/soak.json

.PHONY: simulate
simulate: ## Run a dispatcher through days of simulated misfortune for 10 minutes (SIMULATEFOR), from a new SEED
	go test ./test/simulation -count=1 -timeout=0 -v -run='^TestSimulation$$' -for=$(SIMULATEFOR) -seed=$(SEED)

.PHONY: scale
scale: ## Measure the control plane: 1,000 subscriptions, or others (SCALEFLAGS=-help)
	CGO_ENABLED=0 go run ./hack/scale $(SCALEFLAGS)

.PHONY: microbench
microbench: ## Run the packages' benchmarks
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: e2e
e2e: ## Deliver an event on the cluster that KUBECONFIG names; LOAD_IMAGE or RELEASE and LOAD_ARCHIVE, see hack/e2e/doc.go
	@[[ -n $${LOAD_ARCHIVE:-} ]] || [[ -n $${LOAD_IMAGE:-} ]] || { echo "LOAD_IMAGE is not set: for kind, make e2e LOAD_IMAGE=$(CURDIR)/hack/e2e/kind-image"; exit 1; }
	RELEASE=$(abspath $(RELEASE)) go test -count=1 -timeout=30m -v -run '^TestEndToEnd$$' ./hack/e2e

.PHONY: e2e-upgrade
e2e-upgrade: ## Upgrade the previous version and go back under load, by the manifests and by Helm; as make e2e, about 6 minutes
	E2E_UPGRADE=1 RELEASE=$(abspath $(RELEASE)) go test -count=1 -timeout=30m -v -run '^TestUpgrade$$' ./hack/e2e

##@ Use

.PHONY: run
run: ## Start everything on this machine, publish the samples' events, show what arrives
	@go build -o bin/first ./hack/run/first && exec bin/first -cluster=$(CLUSTER) $(RUNFLAGS)

.PHONY: build
build: ## Build bin/eventflow, a static binary
	CGO_ENABLED=0 go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/eventflow .

.PHONY: image
image: ## Build the container image
	$(CONTAINER_TOOL) build --build-arg VERSION=$(VERSION) --tag $(IMAGE) .

.PHONY: release
release: ## Make all files of a release of HEAD in bin/release (VERSION=1.2.3, KEY=FILE, IMAGE_REPOSITORY), see docs/releasing.md
	go run -C hack/release . -version=$(VERSION) -output=$(CURDIR)/bin/release -image=$(IMAGE_REPOSITORY) $(if $(KEY),-key=$(abspath $(KEY)))

.PHONY: release-candidate
release-candidate: ## Make a release of HEAD for linux in bin/candidate, which make e2e then runs (RELEASE=bin/candidate)
	rm -rf bin/candidate
	RELEASE_CANDIDATE=$(CURDIR)/bin/candidate go test -C hack/release -count=1 -timeout=30m -run '^TestRelease$$/^$$' .

.PHONY: release-check
release-check: ## Make a release of HEAD twice, or once beside RELEASE=bin/candidate; compare, verify (RELEASE_PLATFORMS, RELEASE_FRESH=1)
	RELEASE_CANDIDATE=$(abspath $(RELEASE)) go test -C hack/release -count=1 -timeout=30m .

.PHONY: install
install: ## Install the CRDs alone
	$(KUBECTL) apply -k config/crd

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them every subscription
	$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: deploy
deploy: ## Install everything, with IMAGE, by tag or by digest
	@mkdir -p bin/deploy
	@image='$(IMAGE)'; \
	if [[ $$image == *@* ]]; then version="digest: $${image##*@}" name=$${image%@*}; \
	else version="newTag: \"$${image##*:}\"" name=$${image%:*}; fi; \
	printf '%s\n' \
	  'resources: [../../config/default]' \
	  "images: [{name: eventflow, newName: \"$$name\", $$version}]" >bin/deploy/kustomization.yaml
	$(KUBECTL) apply -k bin/deploy
	$(KUBECTL) -n eventflow-system rollout status deployment/eventflow-manager --timeout=2m

.PHONY: undeploy
undeploy: ## Remove everything, and with it the events that wait in the namespace's dispatchers
	-$(KUBECTL) delete --ignore-not-found --all-namespaces --all webhookdispatchers
	$(KUBECTL) delete --ignore-not-found -l app.kubernetes.io/managed-by=eventflow-manager apiservices
	$(KUBECTL) delete --ignore-not-found clusterrolebindings eventflow-deliveries-api eventflow-dispatcher-deliveries
	$(KUBECTL) delete --ignore-not-found -k config/default
	$(KUBECTL) delete --ignore-not-found -l app.kubernetes.io/managed-by=eventflow-manager clusterrolebindings
