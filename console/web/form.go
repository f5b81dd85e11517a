package web

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/kube"
	"github.com/clinikapi/eventflow/console/view"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// defaultKey is the key within a Secret that the console makes.
const defaultKey = "key"

func (s *Server) newForm(c *call) error {
	namespaces := c.namespaces()
	form := view.Form{Namespace: s.chosenNamespace(c, namespaces), Signing: "new", Key: defaultKey, Events: map[string]bool{}}
	return s.showForm(c, http.StatusOK, form, &v1alpha1.WebhookSubscription{}, nil)
}

func (s *Server) edit(c *call) error {
	sub, err := c.Objects.Subscription(c.Context(), c.PathValue("namespace"), c.PathValue("name"))
	if err != nil {
		return err
	}
	return s.showForm(c, http.StatusOK, formOf(sub), sub, nil)
}

// showForm shows a form on top of the object that it changes.
func (s *Server) showForm(c *call, status int, form view.Form, base *v1alpha1.WebhookSubscription, check *view.Check) error {
	m := &view.Edit{Frame: s.frame(c, view.SectionSubscriptions, "New subscription"), Form: form, Owner: kube.Owner(base), New: form.ResourceVersion == ""}
	if !m.New {
		m.Title = "Edit " + form.Name
	}
	m.Resources = gridResources(s.policies(c).catalog().Resources(), form.Events)
	for _, a := range event.Actions {
		m.Actions = append(m.Actions, string(a))
	}
	if check == nil {
		text, err := manifest(overlay(base, form))
		if err != nil {
			return err
		}
		check = &view.Check{YAML: text}
	}
	m.Check = *check
	return s.show(c, status, view.EditPage(m))
}

// gridResources are those of a form's grid: what it has no box for, the next Apply would drop.
func gridResources(known []string, events map[string]bool) []string {
	all := slices.Clone(known)
	for text := range events {
		if p, err := event.ParsePattern(text); err == nil && p.Resource() != "" && p.Resource() != event.Operational && !slices.Contains(all, p.Resource()) {
			all = append(all, p.Resource())
		}
	}
	slices.Sort(all[len(known):])
	return all
}

// formOf fills a form from a subscription.
func formOf(sub *v1alpha1.WebhookSubscription) view.Form {
	f := view.Form{
		Namespace: sub.Namespace, Name: sub.Name, ResourceVersion: cmp.Or(sub.ResourceVersion, "folder"), Events: map[string]bool{}, URL: sub.Spec.URL,
		Signing: "have", Secret: sub.Spec.Signing.SecretRef.Name, Key: sub.Spec.Signing.SecretRef.Key, Filter: sub.Spec.Filter,
		Mode: string(sub.Spec.Payload.Mode), Ordering: string(sub.Spec.Delivery.Ordering),
	}
	for _, e := range sub.Spec.Events {
		f.Events[e] = true
	}
	if from := sub.Spec.URLFrom; from != nil {
		f.URLSecret, f.URLKey = from.SecretKeyRef.Name, from.SecretKeyRef.Key
	}
	if s := sub.Spec.Schedule; s != nil {
		f.At, f.ScheduleKey, f.IfPast = s.At, s.Key, string(s.IfPast)
	}
	if d := sub.Spec.Timeout.Duration; d > 0 {
		f.Timeout = d.String()
	}
	if n := sub.Spec.Delivery.MaxInFlight; n > 0 {
		f.MaxInFlight = strconv.Itoa(int(n))
	}
	return f
}

// readForm reads what was sent.
func readForm(c *call) view.Form {
	value := func(name string) string {
		return strings.TrimSpace(strings.ReplaceAll(c.FormValue(name), "\r\n", "\n"))
	}
	f := view.Form{
		Namespace: value("namespace"), Name: value("name"), ResourceVersion: value("resourceVersion"), Events: map[string]bool{},
		URL: value("url"), URLSecret: value("urlSecret"), URLKey: value("urlKey"), Signing: value("signing"), Secret: value("secret"),
		Key: value("key"), Filter: value("filter"), At: value("at"), ScheduleKey: value("scheduleKey"), IfPast: value("ifPast"),
		Mode: value("mode"), Ordering: value("ordering"), Timeout: value("timeout"), MaxInFlight: value("maxInFlight"), Force: value("force") != "",
	}
	for _, e := range c.Form["event"] {
		f.Events[e] = true
	}
	if f.Signing == "new" && f.Secret == "" && f.Name != "" {
		f.Secret = f.Name + "-key"
	}
	return f
}

// overlay sets the form's fields on an object, and leaves all others of it as they are.
func overlay(base *v1alpha1.WebhookSubscription, f view.Form) *v1alpha1.WebhookSubscription {
	sub := base.DeepCopy()
	sub.Name, sub.Namespace, sub.ResourceVersion = f.Name, f.Namespace, f.ResourceVersion
	sub.Status, sub.ManagedFields = v1alpha1.WebhookSubscriptionStatus{}, nil
	spec := &sub.Spec
	spec.URL, spec.URLFrom = f.URL, nil
	if f.URL != "" || f.URLSecret != "" { // the form has no field for a Service, and keeps the one that is there
		spec.ServiceRef = v1alpha1.ServiceReference{}
	}
	if f.URLSecret != "" {
		spec.URLFrom = &v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: f.URLSecret, Key: f.URLKey}}
	}
	spec.Events = chosen(spec.Events, f.Events)
	spec.Filter = f.Filter
	spec.Signing.SecretRef = v1alpha1.SecretKeyReference{Name: f.Secret, Key: cmp.Or(f.Key, defaultKey)}
	if f.At == "" && f.ScheduleKey == "" {
		spec.Schedule = nil
	} else {
		if spec.Schedule == nil {
			spec.Schedule = &v1alpha1.Schedule{}
		}
		spec.Schedule.At, spec.Schedule.Key, spec.Schedule.IfPast = f.At, f.ScheduleKey, v1alpha1.IfPast(f.IfPast)
	}
	spec.Payload.Mode, spec.Delivery.Ordering = v1alpha1.PayloadMode(f.Mode), v1alpha1.Ordering(f.Ordering)
	spec.Timeout = metav1.Duration{}
	if d, err := time.ParseDuration(f.Timeout); err == nil {
		spec.Timeout.Duration = d
	}
	spec.Delivery.MaxInFlight = 0
	if n, err := strconv.ParseInt(f.MaxInFlight, 10, 32); err == nil {
		spec.Delivery.MaxInFlight = int32(n)
	}
	return sub
}

// chosen keeps the order of the patterns that stay, and adds the others sorted.
func chosen(before []string, events map[string]bool) (after []string) {
	for _, e := range before {
		if events[e] {
			after = append(after, e)
		}
	}
	var added []string
	for e := range events {
		if !slices.Contains(before, e) {
			added = append(added, e)
		}
	}
	slices.Sort(added)
	return append(after, added...)
}

// base is the object that a form changes, as it is now.
func (c *call) base(f view.Form) (*v1alpha1.WebhookSubscription, error) {
	if f.ResourceVersion == "" {
		return &v1alpha1.WebhookSubscription{}, nil
	}
	return c.Objects.Subscription(c.Context(), f.Namespace, f.Name)
}

// examine compiles a form's object as the manager does, by the settings of the dispatcher if the user may see them, and asks the cluster if it would take it.
func (s *Server) examine(c *call, f view.Form, sub *v1alpha1.WebhookSubscription) (*view.Check, error) {
	check := &view.Check{Checked: true}
	var err error
	if check.YAML, err = manifest(sub); err != nil {
		return nil, err
	}
	if f.Timeout != "" && sub.Spec.Timeout.Duration == 0 {
		check.Problems = append(check.Problems, "Time limit: write a duration such as 30s")
	}
	if f.MaxInFlight != "" && sub.Spec.Delivery.MaxInFlight == 0 {
		check.Problems = append(check.Problems, "At once: write a number such as 32")
	}
	// Secrets are the manager's to read: a key that is good in their place lets everything else be compiled.
	sources := routing.Sources{Secrets: anySecret(sub), Services: routing.PlaceholderServices(sub)}
	policy, known := s.policies(c).of(sub)
	if !known {
		check.Notes = unknown(sub)
	}
	_, rejection, err := routing.Compile(withoutSecrets(sub), sources, policy)
	switch {
	case err != nil:
		return nil, err
	case rejection != nil:
		check.Problems = append(check.Problems, rejection.Message)
	}
	if len(check.Problems) == 0 {
		if err := c.Objects.Check(c.Context(), sub); err != nil {
			check.Problems = append(check.Problems, messageOf(err))
		}
	}
	return check, nil
}

// withoutSecrets leaves out what only a Secret's or a ConfigMap's content makes right or wrong.
func withoutSecrets(sub *v1alpha1.WebhookSubscription) *v1alpha1.WebhookSubscription {
	plain := sub.DeepCopy()
	plain.Spec.TLS, plain.Spec.Auth = v1alpha1.SubscriptionTLS{}, nil
	if plain.Spec.Lookup != nil {
		plain.Spec.Lookup.Auth = nil
	}
	plain.Spec.Headers = slices.DeleteFunc(plain.Spec.Headers, func(h v1alpha1.Header) bool { return h.ValueFrom != nil })
	return plain
}

// anySecret has every key that a subscription names, with a value that is good as a signing key and as a URL.
func anySecret(sub *v1alpha1.WebhookSubscription) routing.Secrets {
	return func(name string) (map[string][]byte, bool, error) {
		values := map[string][]byte{}
		for _, ref := range routing.SigningReferences(&sub.Spec) {
			if ref.Name == name {
				values[ref.Key] = []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
			}
		}
		if from := sub.Spec.URLFrom; from != nil && from.SecretKeyRef.Name == name {
			values[from.SecretKeyRef.Key] = []byte("https://example.com/hooks")
		}
		return values, true, nil
	}
}

// messageOf is an error as a form shows it.
func messageOf(err error) string {
	_, problem := problemOf(err)
	if problem.Right != "" {
		return "You lack a right: " + problem.Right
	}
	return problem.Detail
}

// check answers with the check alone where the page asks for it, and with the page elsewhere.
func (s *Server) check(c *call) error {
	form := readForm(c)
	base, err := c.base(form)
	if err != nil {
		return err
	}
	check, err := s.examine(c, form, overlay(base, form))
	if err != nil {
		return err
	}
	if c.Header.Get("HX-Request") != "" {
		return s.show(c, http.StatusOK, view.CheckPart(check))
	}
	return s.showForm(c, http.StatusOK, form, base, check)
}

func (*Server) formYAML(c *call) error {
	form := readForm(c)
	base, err := c.base(form)
	if err != nil {
		return err
	}
	return c.download(overlay(base, form))
}

// save creates or updates. The Secret that the form asks for is made once the API server said that it would take the rest.
func (s *Server) save(c *call) error {
	form := readForm(c)
	base, err := c.base(form)
	if err != nil {
		return err
	}
	sub := overlay(base, form)
	check, err := s.examine(c, form, sub)
	if err != nil {
		return err
	}
	if owner := kube.Owner(base); owner != "" && !form.Force {
		check.Problems = append(check.Problems, owner+" owns this subscription: change it in Git, or say that you want to apply it here")
	}
	if len(check.Problems) > 0 {
		return s.showForm(c, http.StatusUnprocessableEntity, form, base, check)
	}
	made := false
	if form.Signing == "new" && form.ResourceVersion == "" {
		err = c.newKey(form.Namespace, form.Secret, cmp.Or(form.Key, defaultKey), v1alpha1.SchemeShared)
		made = err == nil
	}
	if err == nil {
		err = c.Objects.Save(c.Context(), sub)
	}
	if err != nil {
		check.Problems = []string{messageOf(err)}
		if made {
			form.Signing = "have"
			check.Problems = append(check.Problems, leftBehind(form.Namespace, form.Secret)+" Apply again to use it.")
		}
		status, _ := problemOf(err)
		return s.showForm(c, status, form, base, check)
	}
	s.audit(c, "saved", "subscription", form.Namespace+"/"+form.Name)
	return c.done(view.SubscriptionLink(form.Namespace, form.Name), "saved")
}

// newKey makes a Secret with a random key of 32 bytes, as Standard Webhooks writes it: a shared key, or the seed of a pair (RFC 8032).
func (c *call) newKey(namespace, name, key string, scheme v1alpha1.SignatureScheme) error {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	prefix := "whsec_"
	if scheme == v1alpha1.SchemePair {
		prefix = "whsk_"
	}
	return c.Objects.CreateSecret(c.Context(), namespace, name, key, []byte(prefix+base64.StdEncoding.EncodeToString(random)))
}

// leftBehind says that a Secret was made for a change that failed. The console does not delete it: that is a right that few have.
func leftBehind(namespace, secret string) string {
	return "The Secret " + secret + " was made, and nothing uses it yet: \"kubectl -n " + namespace + " delete secret " + secret + "\" removes it."
}

// unusedSecret is why a change failed that a Secret was made for.
type unusedSecret struct {
	error
	namespace, secret string
}

func (u *unusedSecret) Unwrap() error { return u.error }

func (s *Server) rotate(c *call) error {
	sub, err := c.Objects.Subscription(c.Context(), c.PathValue("namespace"), c.PathValue("name"))
	if err != nil {
		return err
	}
	return s.show(c, http.StatusOK, view.RotatePage(&view.Rotate{Frame: s.frame(c, view.SectionSubscriptions, "Rotate the key"), Sub: sub}))
}

// rotateStep makes a step of a change of keys. The patch names the version that the page showed, so that no step happens twice.
func (s *Server) rotateStep(c *call) error {
	namespace, name := c.PathValue("namespace"), c.PathValue("name")
	sub, err := c.Objects.Subscription(c.Context(), namespace, name)
	if err != nil {
		return err
	}
	if owner := kube.Owner(sub); owner != "" {
		return fmt.Errorf("%s owns this subscription: change its keys in Git", owner)
	}
	signing := sub.Spec.Signing
	rotating := signing.PreviousSecretRef != nil || signing.NextSecretRef != nil
	changed := errors.New("the subscription has changed since the page was shown: look at it again")
	keys, why := kube.SigningKeys(sub)
	notice, change := "ended", map[string]any{"previousSecretRef": nil}
	switch step := c.FormValue("step"); {
	case sub.ResourceVersion != c.FormValue("version"):
		return changed
	case step == "begin" && !rotating && why != "":
		return fmt.Errorf("the scheme of the current key is not known, because %s: \"eventflow keys rotate %s -n %s\" makes the step, with --scheme=v1 or --scheme=v1a", why, name, namespace)
	case step == "begin" && !rotating:
		return s.beginRotation(c, sub, keys[0].Scheme)
	case rotating && why != "":
		return errors.New("the step waits, because " + why)
	case step == "promote" && signing.NextSecretRef != nil && signing.PreviousSecretRef == nil:
		notice, change = "promoted", map[string]any{"secretRef": signing.NextSecretRef, "previousSecretRef": signing.SecretRef, "nextSecretRef": nil}
	case step == "end" && signing.PreviousSecretRef != nil:
	default:
		return changed
	}
	if err := c.Objects.Patch(c.Context(), namespace, name, signingPatch(c, change)); err != nil {
		return err
	}
	s.audit(c, notice, "subscription", name)
	return c.done(view.SubscriptionLink(namespace, name, "rotate"), notice)
}

// beginRotation makes a new key of a scheme, and lets it sign beside the current one. The key is made once the API server said that
// it would take the change.
func (s *Server) beginRotation(c *call, sub *v1alpha1.WebhookSubscription, scheme v1alpha1.SignatureScheme) error {
	secret := sub.Name + "-key-" + strings.ToLower(rand.Text()[:6])
	patch := signingPatch(c, map[string]any{"nextSecretRef": v1alpha1.SecretKeyReference{Name: secret, Key: defaultKey}})
	if err := c.Objects.CheckPatch(c.Context(), sub.Namespace, sub.Name, patch); err != nil {
		return err
	}
	if err := c.newKey(sub.Namespace, secret, defaultKey, scheme); err != nil {
		return err
	}
	if err := c.Objects.Patch(c.Context(), sub.Namespace, sub.Name, patch); err != nil {
		return &unusedSecret{err, sub.Namespace, secret}
	}
	s.audit(c, "rotated", "subscription", sub.Name)
	return c.done(view.SubscriptionLink(sub.Namespace, sub.Name, "rotate"), "rotated")
}

// signingPatch changes spec.signing, at the version that the page showed.
func signingPatch(c *call, signing map[string]any) []byte {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": c.FormValue("version")}, "spec": map[string]any{"signing": signing},
	})
	if err != nil {
		panic(err) // strings and references always encode
	}
	return patch
}
