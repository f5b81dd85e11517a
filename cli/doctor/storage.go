package doctor

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// defaultClass is the annotation of the storage class that a claim without one gets.
const defaultClass = "storageclass.kubernetes.io/is-default-class"

// findStorage looks at the volumes of embedded stores: their class, whether they are there, and whether they can grow.
func findStorage(in *Installation) []Finding {
	var all []Finding
	for i := range in.Dispatchers {
		d := &in.Dispatchers[i]
		if d.Spec.Store.Embedded == nil {
			continue
		}
		claim := in.claim(client.ObjectKey{Namespace: d.Namespace, Name: "eventflow-dispatcher-" + d.Name + "-store"})
		if claim == nil || claim.Status.Phase != corev1.ClaimBound {
			all = append(all, in.unbound(d, claim)...)
			continue
		}
		all = append(all, in.growing(d, claim)...)
	}
	return all
}

func (in *Installation) claim(key client.ObjectKey) *corev1.PersistentVolumeClaim {
	for i := range in.Claims {
		if client.ObjectKeyFromObject(&in.Claims[i]) == key {
			return &in.Claims[i]
		}
	}
	return nil
}

// class returns the storage class with the name, or the default one.
func (in *Installation) class(name string) *storagev1.StorageClass {
	for i := range in.Classes {
		c := &in.Classes[i]
		if name == c.Name || name == "" && c.Annotations[defaultClass] == "true" {
			return c
		}
	}
	return nil
}

// unbound says why there is no volume.
func (in *Installation) unbound(d *v1alpha1.WebhookDispatcher, claim *corev1.PersistentVolumeClaim) []Finding {
	named := object("WebhookDispatcher", d.Namespace, d.Name)
	name := d.Spec.Store.Embedded.StorageClassName
	if in.Unread["storageclasses"] == "" && in.class(name) == nil {
		f := Finding{
			Level: Failed, Object: named, Problem: "there is no default storage class, and spec.store.embedded names none",
			Mend: fmt.Sprintf("kubectl get storageclass; kubectl -n %s edit webhookdispatcher/%s    # spec.store.embedded.storageClassName", d.Namespace, d.Name),
		}
		if name != "" {
			f.Problem = "there is no storage class " + name + ", which spec.store.embedded names"
		}
		return []Finding{f}
	}
	if claim == nil {
		return nil // the dispatcher's own conditions say why
	}
	return []Finding{{
		Level: Waiting, Object: object("PersistentVolumeClaim", claim.Namespace, claim.Name), Problem: "its volume is not there: " + string(claim.Status.Phase),
		Mend: fmt.Sprintf("kubectl -n %s describe pvc %s", claim.Namespace, claim.Name),
	}}
}

// growing says of a volume that is to grow whether it can.
func (in *Installation) growing(d *v1alpha1.WebhookDispatcher, claim *corev1.PersistentVolumeClaim) []Finding {
	wanted, has := d.Spec.Store.Embedded.Size, claim.Status.Capacity[corev1.ResourceStorage]
	if wanted.Cmp(has) <= 0 || claim.Spec.StorageClassName == nil {
		return nil
	}
	named := object("PersistentVolumeClaim", claim.Namespace, claim.Name)
	class := in.class(*claim.Spec.StorageClassName)
	if class != nil && (class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion) {
		return []Finding{{
			Level: Failed, Object: named, Problem: fmt.Sprintf("the volume has %s, and is to have %s, but its storage class %s lets no volume grow", has.String(), wanted.String(), class.Name),
			Mend: fmt.Sprintf("kubectl patch storageclass %s -p '{\"allowVolumeExpansion\":true}'    # if its driver can", class.Name),
		}}
	}
	return []Finding{{
		Level: Warning, Object: named, Problem: fmt.Sprintf("the volume has %s, and is growing to %s", has.String(), wanted.String()),
		Mend: fmt.Sprintf("kubectl -n %s describe pvc %s", claim.Namespace, claim.Name),
	}}
}
