package dispatcher

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/controllers/names"
)

// keptCertificates are what is known of the certificates that the manager keeps, by their Secrets, so that these are read again only
// once they change or are due. There are two for each dispatcher at most. The zero value knows none.
type keptCertificates struct {
	mu    sync.Mutex
	known map[client.ObjectKey]keptCertificate
}

type keptCertificate struct {
	version string // of the Secret
	bundle  []byte
	again   time.Time
}

func (k *keptCertificates) get(secret client.ObjectKey) (keptCertificate, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.known[secret]
	return known, ok
}

func (k *keptCertificates) put(secret client.ObjectKey, known keptCertificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil {
		k.known = make(map[client.ObjectKey]keptCertificate)
	}
	k.known[secret] = known
}

// forget drops those of a dispatcher that is gone.
func (k *keptCertificates) forget(d types.NamespacedName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range []string{names.Ingest(d.Name), names.Deliveries(d.Name)} {
		delete(k.known, client.ObjectKey{Namespace: d.Namespace, Name: name})
	}
}
