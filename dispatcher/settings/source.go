package settings

import (
	"context"
	"errors"
	"io/fs"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Secrets is what a Source needs of a namespace's.
type Secrets interface {
	List(ctx context.Context, options metav1.ListOptions) (*corev1.SecretList, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// Source follows the settings of one dispatcher in a cluster.
type Source struct {
	// Secrets are those of the dispatcher's namespace, of which the Role allows the one with the settings.
	Secrets Secrets
	// Dispatcher is the name of the WebhookDispatcher.
	Dispatcher string
	// LastGood keeps the settings on disk; nil if they are not kept.
	LastGood *LastGood
	Log      logr.Logger
}

// Run calls use with the settings that were saved last, if there are some, and then with each that the Secret has, one
// after the other. What cannot be used, it logs, and the settings before stay; so they do if the Secret is deleted. It
// returns once ctx has ended and all that it started has.
func (s *Source) Run(ctx context.Context, use func(*Settings)) {
	s.load(use)
	name := SecretName(s.Dispatcher)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	take := func(object any) {
		if secret, ok := object.(*corev1.Secret); ok && secret.Name == name {
			s.take(secret, use)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &listWatch{cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.FieldSelector = selector
				return s.Secrets.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.FieldSelector = selector
				return s.Secrets.Watch(ctx, options)
			},
		}},
		ObjectType: &corev1.Secret{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    take,
			UpdateFunc: func(_, object any) { take(object) },
			DeleteFunc: func(any) { s.Log.Info("Settings were deleted: keeping the last ones", "secret", name) },
		},
	})
	informer.RunWithContext(ctx)
}

// listWatch lists before it watches: a list of one object needs no stream.
type listWatch struct{ cache.ListWatch }

// IsWatchListSemanticsUnSupported is asked by the reflector.
func (*listWatch) IsWatchListSemanticsUnSupported() bool { return true }

// load uses what an earlier process saved.
func (s *Source) load(use func(*Settings)) {
	if s.LastGood == nil {
		return
	}
	last, err := s.LastGood.Load()
	switch {
	case err == nil:
		use(last)
	case !errors.Is(err, fs.ErrNotExist):
		s.Log.Error(err, "Last good settings ignored")
	}
}

// take saves and uses the settings in a Secret. They are saved first: a restart must not go back behind them.
func (s *Source) take(secret *corev1.Secret, use func(*Settings)) {
	taken, err := Decode(secret.Data[Key])
	if err != nil {
		s.Log.Error(err, "Settings not usable, keeping the last ones", "secret", secret.Name)
		return
	}
	if s.LastGood != nil {
		if err := s.LastGood.Save(taken); err != nil {
			s.Log.Error(err, "Settings not saved; a restart without the API server would use older ones")
		}
	}
	use(taken)
}
