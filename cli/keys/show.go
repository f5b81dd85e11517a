package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/kube"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// shown is a key that signs, or that the spec names and that does not sign yet.
type shown struct {
	Key    string                   `json:"id,omitempty"`
	Scheme v1alpha1.SignatureScheme `json:"scheme,omitempty"`
	// Use is current, previous or next; "" of a key that the spec does not name.
	Use       string    `json:"use,omitempty"`
	Secret    string    `json:"secret,omitempty"`
	SecretKey string    `json:"secretKey,omitempty"`
	Since     time.Time `json:"signsSince,omitzero"`
	PublicKey string    `json:"publicKey,omitempty"`
}

// show prints the keys of a subscription. It reads no Secret.
func show(ctx context.Context, api client.Client, out io.Writer, namespace, name, output string) error {
	sub := &v1alpha1.WebhookSubscription{}
	if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, sub); err != nil {
		return fmt.Errorf("read the subscription: %w", err)
	}
	rows, why := rowsOf(sub)
	if output == "json" {
		text, err := json.MarshalIndent(map[string]any{"keys": rows, "uncertain": why}, "", "  ")
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		_, err = fmt.Fprintln(out, string(text))
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "USE\tID\tSCHEME\tSIGNS SINCE\tSECRET\tPUBLIC KEY")
	for _, r := range rows {
		since, secret := "not yet known", ""
		if !r.Since.IsZero() {
			since = r.Since.UTC().Format(time.RFC3339)
		}
		if r.Secret != "" {
			secret = r.Secret + "/" + r.SecretKey
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", dash(r.Use), dash(r.Key), dash(string(r.Scheme)), since, dash(secret), dash(r.PublicKey))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if why != "" {
		_, err := fmt.Fprintln(out, "\nWhich key is which is not certain now: "+why+".")
		return err
	}
	return nil
}

// rowsOf are the keys of a subscription, in the order in which they sign, and why they cannot be told apart, if so.
func rowsOf(sub *v1alpha1.WebhookSubscription) ([]shown, string) {
	keys, why := kube.SigningKeys(sub)
	var rows []shown
	if why == "" {
		for i, ref := range routing.SigningReferences(&sub.Spec) {
			row := rowOf(keys[i])
			row.Use, row.Secret, row.SecretKey = uses(sub.Spec.Signing)[i], ref.Name, ref.Key
			rows = append(rows, row)
		}
		return rows, ""
	}
	for _, key := range sub.Status.Signing.Keys {
		rows = append(rows, rowOf(key))
	}
	return rows, why
}

func rowOf(key v1alpha1.SigningKey) shown {
	return shown{Key: key.ID, Scheme: key.Scheme, Since: key.SinceTime.Time, PublicKey: key.PublicKey}
}

// uses are the words for the keys of a spec, in the order in which they sign.
func uses(signing v1alpha1.Signing) []string {
	all := []string{"current"}
	if signing.PreviousSecretRef != nil {
		all = append(all, "previous")
	}
	if signing.NextSecretRef != nil {
		all = append(all, "next")
	}
	return all
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
