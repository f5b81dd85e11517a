package rights

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"
)

// policy has the API server log who asked for what, and nothing of what was answered.
const policy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{level: Metadata}]
`

// longest is the longest line of a log.
const longest = 1 << 20

// Log is an API server's audit log.
type Log struct{ file string }

// Record has an API server that is not started yet write an audit log into a folder.
func Record(environment *envtest.Environment, dir string) (Log, error) {
	policyFile, log := filepath.Join(dir, "audit-policy.yaml"), Log{file: filepath.Join(dir, "audit.log")}
	if err := os.WriteFile(policyFile, []byte(policy), 0o600); err != nil {
		return log, fmt.Errorf("write the audit policy: %w", err)
	}
	environment.ControlPlane.GetAPIServer().Configure().
		Set("audit-policy-file", policyFile).
		Set("audit-log-path", log.file).
		Set("audit-log-mode", "blocking")
	return log, nil
}

// Right is one verb on one resource, which may be a subresource: webhooksubscriptions/status.
type Right struct{ Verb, Group, Resource string }

// String is how a person names it.
func (r Right) String() string {
	if r.Group == "" {
		return r.Verb + " " + r.Resource
	}
	return r.Verb + " " + r.Resource + "." + r.Group
}

// event is what is read of an entry of the log.
type event struct {
	Verb             string                    `json:"verb"`
	User             struct{ Username string } `json:"user"`
	ImpersonatedUser struct{ Username string } `json:"impersonatedUser"`
	ObjectRef        struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		APIGroup    string `json:"apiGroup"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// Used returns the rights by which a user's requests were allowed.
func (l Log) Used(user string) (map[Right]bool, error) {
	file, err := os.Open(l.file)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer func() { _ = file.Close() }()
	used := make(map[Right]bool)
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, longest)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		who := e.User.Username
		if e.ImpersonatedUser.Username != "" {
			who = e.ImpersonatedUser.Username
		}
		if who != user || e.ResponseStatus.Code == 403 || e.ObjectRef.Resource == "" {
			continue
		}
		right := Right{Verb: e.Verb, Group: e.ObjectRef.APIGroup, Resource: e.ObjectRef.Resource}
		if e.ObjectRef.Subresource != "" {
			right.Resource += "/" + e.ObjectRef.Subresource
		}
		used[right] = true
		if e.Verb == "patch" && e.ResponseStatus.Code == 201 { // server-side apply, which needs both
			right.Verb = "create"
			used[right] = true
		}
	}
	return used, lines.Err()
}

// Rules returns the rights of the roles in a file of manifests, by the role's name. Roles and ClusterRoles of one name are
// taken together.
func Rules(file string) (map[string][]Right, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the roles: %w", err)
	}
	roles := make(map[string][]Right)
	for _, document := range Documents(text) {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal(document, &role); err != nil {
			return nil, fmt.Errorf("read the roles: %w", err)
		}
		if role.Kind == "ClusterRole" || role.Kind == "Role" {
			roles[role.Name] = append(roles[role.Name], Of(role.Rules)...)
		}
	}
	return roles, nil
}

// Documents are those of a file of manifests.
func Documents(text []byte) [][]byte { return bytes.Split(text, []byte("\n---\n")) }

// Of returns the rights that rules give.
func Of(rules []rbacv1.PolicyRule) (rights []Right) {
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					rights = append(rights, Right{Verb: verb, Group: group, Resource: resource})
				}
			}
		}
	}
	return rights
}

// Unused returns those rights, sorted, that were not used, and are not implied by one that was: held names, for a right that
// no request has for itself, such as one that is only handed on, the right whose use needs it. A watch needs the right to
// list, which it falls back to where the API server cannot begin a watch with what there is.
func Unused(given []Right, used map[Right]bool, held map[Right]Right) []string {
	unused := make(map[string]bool)
	for _, right := range given {
		listed := right
		if listed.Verb == "list" {
			listed.Verb = "watch"
		}
		if needs, found := held[right]; !used[right] && !used[listed] && (!found || !used[needs]) {
			unused[right.String()] = true
		}
	}
	return slices.Sorted(maps.Keys(unused))
}

// ServiceAccount is how the API server names one.
func ServiceAccount(namespace, name string) string {
	return strings.Join([]string{"system:serviceaccount", namespace, name}, ":")
}
