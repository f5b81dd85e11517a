// Package folder is a folder of manifests as the console sees it: without a cluster, and without a way to change anything. It
// reads the files that "eventflow dispatcher --routes=DIR" reads, on each request.
package folder

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/kube"
)

// maxFile and maxFiles bound what is read for a page.
const (
	maxFile  = 4 << 20
	maxFiles = 10_000
)

// Folder is the manifests in a folder. It is a kube.Objects.
type Folder struct{ dir string }

var _ kube.Objects = (*Folder)(nil)

// New returns the folder with the given path.
func New(dir string) *Folder { return &Folder{dir: dir} }

// ReadOnly says where changes belong.
func (*Folder) ReadOnly() string { return kube.ErrReadOnly.Error() }

// all reads the subscriptions of all files. A document that cannot be read is left out: the dispatcher's log names it.
func (f *Folder) all(ctx context.Context) ([]v1alpha1.WebhookSubscription, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	var subs []v1alpha1.WebhookSubscription
	for i, entry := range entries {
		if ctx.Err() != nil || i >= maxFiles {
			break
		}
		extension := filepath.Ext(entry.Name())
		if entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, extension) {
			continue
		}
		subs = append(subs, read(filepath.Join(f.dir, entry.Name()))...)
	}
	return subs, ctx.Err()
}

func read(path string) (subs []v1alpha1.WebhookSubscription) {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	decoder := yaml.NewYAMLOrJSONDecoder(io.LimitReader(file, maxFile), 4096)
	for {
		sub := v1alpha1.WebhookSubscription{}
		if err := decoder.Decode(&sub); err != nil {
			return subs
		}
		if sub.Kind != "WebhookSubscription" || sub.Name == "" {
			continue
		}
		if sub.Namespace == "" {
			sub.Namespace = "default"
		}
		subs = append(subs, sub)
	}
}

// Namespaces are those that the manifests name.
func (f *Folder) Namespaces(ctx context.Context) ([]string, error) {
	subs, err := f.all(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range subs {
		names = append(names, subs[i].Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Subscriptions are the rows of a namespace, or of all. A folder says nothing of states, so each is pending.
func (f *Folder) Subscriptions(ctx context.Context, namespace string, _ bool) (*kube.Snapshot, error) {
	subs, err := f.all(ctx)
	if err != nil {
		return nil, err
	}
	list := &kube.Snapshot{Time: time.Now()}
	for i := range subs {
		if namespace == "" || subs[i].Namespace == namespace {
			list.Rows = append(list.Rows, kube.RowOf(&subs[i]))
		}
	}
	kube.Sort(list.Rows)
	return list, nil
}

// Subscription is one of the manifests.
func (f *Folder) Subscription(ctx context.Context, namespace, name string) (*v1alpha1.WebhookSubscription, error) {
	subs, err := f.all(ctx)
	if err != nil {
		return nil, err
	}
	for i := range subs {
		if subs[i].Namespace == namespace && subs[i].Name == name {
			return &subs[i], nil
		}
	}
	return nil, kube.ErrNotFound
}

// Specs are the manifests of a namespace.
func (f *Folder) Specs(ctx context.Context, namespace string) (subs []v1alpha1.WebhookSubscription, more bool, err error) {
	all, err := f.all(ctx)
	if err != nil {
		return nil, false, err
	}
	subs = slices.DeleteFunc(all, func(sub v1alpha1.WebhookSubscription) bool { return sub.Namespace != namespace })
	return subs[:min(len(subs), kube.MaxSpecs)], len(subs) > kube.MaxSpecs, nil
}

// Check succeeds: what a manifest may be is the compiler's to say.
func (*Folder) Check(context.Context, *v1alpha1.WebhookSubscription) error { return nil }

// Save is refused.
func (*Folder) Save(context.Context, *v1alpha1.WebhookSubscription) error { return kube.ErrReadOnly }

// Patch is refused.
func (*Folder) Patch(context.Context, string, string, []byte) error { return kube.ErrReadOnly }

// CheckPatch is refused.
func (*Folder) CheckPatch(context.Context, string, string, []byte) error { return kube.ErrReadOnly }

// Dispatchers are none.
func (*Folder) Dispatchers(context.Context) ([]v1alpha1.WebhookDispatcher, error) { return nil, nil }

// CreateSecret is refused.
func (*Folder) CreateSecret(context.Context, string, string, string, []byte) error {
	return kube.ErrReadOnly
}
