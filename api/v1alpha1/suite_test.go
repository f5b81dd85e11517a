package v1alpha1_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// crds is where make generate puts the CRDs.
var crds = filepath.Join("..", "..", "config", "crd", "bases")

// The API server that every test of this package talks to, with the generated CRDs installed.
var (
	apiServer   client.Client
	environment = &envtest.Environment{CRDDirectoryPaths: []string{crds}, ErrorIfCRDPathMissing: true}
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	config, err := environment.Start()
	if err != nil {
		return fail("start the API server (make test finds or builds one; by hand: export KUBEBUILDER_ASSETS=$(hack/controlplane/assets))", err)
	}
	defer func() {
		if err := environment.Stop(); err != nil {
			fail("stop the API server", err)
		}
	}()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return fail("add the types to a scheme", err)
	}
	apiServer, err = client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fail("make a client", err)
	}
	return m.Run()
}

func fail(doing string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", doing, err)
	return 1
}
