package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// controlPlaneTimeout is how long etcd and kube-apiserver may each take on a slow machine.
const controlPlaneTimeout = 2 * time.Minute

// startControlPlane starts etcd and kube-apiserver, or finds the cluster that is there.
func (s *session) startControlPlane(ctx context.Context) error {
	if s.cluster == current {
		return s.findCluster(ctx)
	}
	assets, err := s.assets(ctx)
	if err != nil {
		return err
	}
	s.kubectl = filepath.Join(assets, "kubectl")
	local := false
	env := &envtest.Environment{
		BinaryAssetsDirectory:    assets,
		UseExistingCluster:       &local,
		ControlPlaneStartTimeout: controlPlaneTimeout,
	}
	s.cleanup(func(context.Context) error { return env.Stop() })
	if _, err := env.Start(); err != nil {
		return err
	}
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	return os.WriteFile(s.kubeconfig, env.KubeConfig, 0o600)
}

// assets returns the folder of etcd, kube-apiserver and kubectl, which are built the first time.
func (s *session) assets(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.root, "hack", "controlplane", "assets"))
	cmd.Stderr = s.progress
	cmd.SysProcAttr = ownGroup()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("hack/controlplane/assets: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// findCluster finds the cluster that KUBECONFIG names. One that has Event Flow is left alone: the run would end with
// deleting it.
func (s *session) findCluster(ctx context.Context) error {
	s.kubectl = "kubectl"
	if _, err := exec.LookPath(s.kubectl); err != nil {
		assets, err := s.assets(ctx)
		if err != nil {
			return err
		}
		s.kubectl = filepath.Join(assets, "kubectl")
	}
	config, err := s.kube(ctx, "config", "view", "--minify", "--flatten", "--raw")
	if err != nil {
		return err
	}
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	if err := os.WriteFile(s.kubeconfig, config, 0o600); err != nil {
		return err
	}
	found, err := s.kube(ctx, "get", "customresourcedefinitions", "--ignore-not-found", "-o", "name",
		"webhooksubscriptions.webhooks.clinikapi.com", "webhookdispatchers.webhooks.clinikapi.com", "webhookreplays.webhooks.clinikapi.com", "webhookdestinations.webhooks.clinikapi.com")
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("Event Flow is installed in this cluster; publish to it, or use a cluster without") //nolint:staticcheck // a name
	}
	return nil
}

// serviceAccountConfig writes a kubeconfig that acts as a ServiceAccount, so that the RBAC rules are put to the test.
func (s *session) serviceAccountConfig(ctx context.Context, namespace, name string) (string, error) {
	token, err := s.kube(ctx, "--namespace="+namespace, "create", "token", name, "--duration=168h")
	if err != nil {
		return "", err
	}
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		return "", err
	}
	current, ok := config.Contexts[config.CurrentContext]
	if !ok {
		return "", fmt.Errorf("the kubeconfig has no context %q", config.CurrentContext)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{current.AuthInfo: {Token: strings.TrimSpace(string(token))}}
	file := filepath.Join(s.dir, name+".kubeconfig")
	return file, clientcmd.WriteToFile(*config, file)
}
