package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// upWithin is how long a process may take to come up.
const upWithin = 2 * time.Minute

// init keeps the caller's settings from what is started here.
func init() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "EVENTFLOW_") || name == "KUBECONFIG" {
			_ = os.Unsetenv(name)
		}
	}
}

// startManager starts the manager, and the dispatcher's objects if there are none yet.
func (s *stage) startManager(ctx context.Context) (err error) {
	s.manager, err = start(s.dir, "manager", s.binary, "manager", "--kubeconfig="+s.managerConfig,
		"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=0", "--create-default-dispatcher=false", "--dispatcher-image=eventflow:dev")
	if err != nil || s.dispatcherArguments != nil {
		return err
	}
	return s.describeDispatcher(ctx)
}

// createDispatcher makes the WebhookDispatcher. No pods come of it: its process runs here.
func (s *stage) createDispatcher(ctx context.Context) error {
	allow := true
	return s.api.Create(ctx, &v1alpha1.WebhookDispatcher{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: dispatcherName},
		Spec: v1alpha1.WebhookDispatcherSpec{
			Ingest: v1alpha1.Ingest{Authentication: v1alpha1.IngestNone},
			Egress: v1alpha1.Egress{AllowHTTP: &allow, AllowedCIDRs: []string{"127.0.0.0/8"}},
		},
	})
}

// describeDispatcher waits for the Deployment, and takes over what its pod would be started with.
func (s *stage) describeDispatcher(ctx context.Context) error {
	deployment := &appsv1.Deployment{}
	err := until(ctx, upWithin, 100*time.Millisecond, "the dispatcher's Deployment", func() (bool, error) {
		err := s.api.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: dispatcherAccount}, deployment)
		return err == nil, errors.Join(client.IgnoreNotFound(err), s.manager.alive())
	})
	if err != nil {
		return err
	}
	// The account may follow the Deployment.
	err = until(ctx, upWithin, 100*time.Millisecond, "the dispatcher's account", func() (bool, error) {
		var err error
		s.dispatcherConfig, err = s.accountConfig(ctx, dispatcherAccount)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	s.dispatcherArguments = append(slices.Clone(deployment.Spec.Template.Spec.Containers[0].Args),
		"--kubeconfig="+s.dispatcherConfig, "--store=pebble:"+filepath.Join(s.dir, "store"), "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--drain-delay=0s")
	for _, v := range deployment.Spec.Template.Spec.Containers[0].Env {
		if name, ours := strings.CutPrefix(v.Name, "EVENTFLOW_"); ours && v.Value != "" {
			s.dispatcherArguments = append(s.dispatcherArguments, "--"+strings.ToLower(strings.ReplaceAll(name, "_", "-"))+"="+v.Value)
		}
	}
	return err
}

// startDispatcher starts what the dispatcher's pod would be, and waits until it accepts events if wait is set.
func (s *stage) startDispatcher(ctx context.Context, wait bool) (err error) {
	s.heardFrom, s.publishURL = s.logSize("dispatcher"), ""
	if s.dispatcher, err = start(s.dir, "dispatcher", s.binary, s.dispatcherArguments...); err != nil || !wait {
		return err
	}
	return s.hear(ctx)
}

// hear waits until the dispatcher that was started last has logged its address.
func (s *stage) hear(ctx context.Context) error {
	if s.publishURL != "" {
		return nil
	}
	return until(ctx, upWithin, 50*time.Millisecond, "the dispatcher's start", func() (bool, error) {
		s.publishURL = s.heardAddress(s.heardFrom)
		return s.publishURL != "", s.dispatcher.alive()
	})
}

func (s *stage) logSize(name string) int64 {
	info, err := os.Stat(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// heardAddress is the address that the dispatcher logged behind offset; "" if it did not yet.
func (s *stage) heardAddress(offset int64) string {
	text, err := os.ReadFile(filepath.Join(s.dir, "dispatcher.log"))
	if err != nil || int64(len(text)) < offset {
		return ""
	}
	for entry := range strings.Lines(string(text[offset:])) {
		var said struct{ API string }
		if json.Unmarshal([]byte(entry), &said) == nil && said.API != "" {
			return said.API
		}
	}
	return ""
}

// restart stops a process and starts it again.
func (s *stage) restart(ctx context.Context, who string) error {
	if who == userManager {
		if err := s.manager.stop(); err != nil {
			return err
		}
		return s.startManager(ctx)
	}
	if err := s.dispatcher.stop(); err != nil {
		return err
	}
	return s.startDispatcher(ctx, false)
}

// alive fails if a process that should run does not.
func (s *stage) alive() error {
	for _, p := range []*process{s.manager, s.dispatcher} {
		if p == nil {
			continue
		}
		if err := p.alive(); err != nil {
			return fmt.Errorf("while it was measured: %w", err)
		}
	}
	return nil
}
