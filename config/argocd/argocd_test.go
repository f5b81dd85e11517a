package argocd

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	lua "github.com/yuin/gopher-lua"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/test/kit/states"
)

var update = flag.Bool("update", false, "write the fixtures, and argocd-cm.yaml")

const folder = "resource_customizations/webhooks.clinikapi.com/"

// kinds are those that have customizations, and their examples of states.
var kinds = map[string]string{"WebhookSubscription": states.Subscriptions, "WebhookDispatcher": states.Dispatchers, "WebhookReplay": states.Replays}

// statuses are Argo CD's words for those of kstatus.
var statuses = map[string]string{"Failed": "Degraded", "InProgress": "Progressing", "Current": "Healthy"}

// run runs a script on an object as Argo CD does: with the libraries base, package and table alone. string is not there.
func run(t *testing.T, script string, object map[string]any) any {
	t.Helper()
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	for name, open := range map[string]lua.LGFunction{lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			t.Fatal(err)
		}
	}
	l.SetContext(t.Context())
	l.SetGlobal("obj", toLua(l, object))
	if err := l.DoString(script); err != nil {
		t.Fatal(err)
	}
	return fromLua(l.Get(-1))
}

func toLua(l *lua.LState, value any) lua.LValue {
	switch v := value.(type) {
	case map[string]any:
		table := l.CreateTable(0, len(v))
		for key, one := range v {
			table.RawSetString(key, toLua(l, one))
		}
		return table
	case []any:
		table := l.CreateTable(len(v), 0)
		for _, one := range v {
			table.Append(toLua(l, one))
		}
		return table
	case string:
		return lua.LString(v)
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	case int64:
		return lua.LNumber(v)
	default:
		return lua.LNil
	}
}

func fromLua(value lua.LValue) any {
	switch v := value.(type) {
	case *lua.LTable:
		if v.Len() > 0 {
			var list []any
			v.ForEach(func(_, one lua.LValue) { list = append(list, fromLua(one)) })
			return list
		}
		all := map[string]any{}
		v.ForEach(func(key, one lua.LValue) { all[key.String()] = fromLua(one) })
		return all
	case lua.LString:
		return string(v)
	case lua.LBool:
		return bool(v)
	case lua.LNumber:
		return float64(v)
	default:
		return nil
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// current holds a file to its text. With -update it writes the file.
func current(t *testing.T, name, text string) {
	t.Helper()
	if found, err := os.ReadFile(name); err == nil && string(found) == text {
		return
	}
	if !*update {
		t.Errorf("%s is not current: run make generate", name)
		return
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// healthTest is one of Argo CD's, in its health_test.yaml.
type healthTest struct {
	HealthStatus struct {
		Status  string `json:"status"`
		Message string `json:"message"`
	} `json:"healthStatus"`
	InputPath string `json:"inputPath"`
}

// TestHealthFixturesAreDocumented: in each state of docs/states.md, the script says what kstatus says. The objects, and
// what is said of them, are the fixtures of Argo CD's own test.
func TestHealthFixturesAreDocumented(t *testing.T) {
	t.Parallel()
	for kind, file := range kinds {
		script := read(t, folder+kind+"/health.lua")
		var tests []healthTest
		fixtures := map[string]bool{}
		for _, example := range states.Examples(t, "../..", file) {
			got, _ := run(t, script, example.Object).(map[string]any)
			if got["status"] != statuses[example.Kstatus] || got["message"] == "" || len(got) != 2 {
				t.Errorf("%s %s: Lua says %v, kstatus %s", kind, example.Row, got, example.Kstatus)
			}
			name := example.Object["metadata"].(map[string]any)["name"].(string) + ".yaml"
			fixtures[name] = true
			one := healthTest{InputPath: "testdata/" + name}
			one.HealthStatus.Status, _ = got["status"].(string)
			one.HealthStatus.Message, _ = got["message"].(string)
			tests = append(tests, one)
			current(t, folder+kind+"/testdata/"+name, text(t, example.Object))
		}
		current(t, folder+kind+"/health_test.yaml", text(t, map[string]any{"tests": tests}))
		left, err := os.ReadDir(folder + kind + "/testdata")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range left {
			if !fixtures[file.Name()] {
				t.Errorf("%s is of no state", file.Name())
			}
		}
	}
}

func text(t *testing.T, value any) string {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOddObjects: what has no status, no conditions or is on its way out is Progressing, and no script fails.
func TestOddObjects(t *testing.T) {
	t.Parallel()
	ready := []any{map[string]any{"type": "Ready", "status": "True", "reason": "Ready"}}
	for kind := range kinds {
		for name, test := range map[string]struct {
			object string
			want   string
		}{
			"no status":        {`{"metadata": {"generation": 1}, "spec": {}}`, "Progressing"},
			"no conditions":    {`{"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}`, "Progressing"},
			"an old condition": {`{"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "conditions": ` + jsonOf(t, ready) + `}}`, "Progressing"},
			"on its way out":   {`{"metadata": {"generation": 1, "deletionTimestamp": "2026-01-15T09:15:00Z"}, "status": {"observedGeneration": 1, "conditions": ` + jsonOf(t, ready) + `}}`, "Progressing"},
			"no message":       {`{"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": ` + jsonOf(t, ready) + `}}`, "Healthy"},
		} {
			var object map[string]any
			if err := json.Unmarshal([]byte(test.object), &object); err != nil {
				t.Fatal(err)
			}
			if got := run(t, read(t, folder+kind+"/health.lua"), object).(map[string]any); got["status"] != test.want {
				t.Errorf("%s, %s: %v, want %s", kind, name, got, test.want)
			}
		}
	}
}

func jsonOf(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestActions runs Argo CD's own test of actions, which its action_test.yaml describes.
func TestActions(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		at := folder + kind + "/actions/"
		var tests struct {
			DiscoveryTests []struct {
				InputPath string
				Result    []struct {
					Name     string
					Disabled bool
				}
			}
			ActionTests []struct{ Action, InputPath, ExpectedOutputPath string }
		}
		readYAML(t, at+"action_test.yaml", &tests)
		for _, test := range tests.DiscoveryTests {
			var object map[string]any
			readYAML(t, at+test.InputPath, &object)
			want := map[string]any{}
			for _, action := range test.Result {
				want[action.Name] = map[string]any{"disabled": action.Disabled}
			}
			if difference := cmp.Diff(want, run(t, read(t, at+"discovery.lua"), object)); difference != "" {
				t.Errorf("%s %s: -want +got\n%s", kind, test.InputPath, difference)
			}
		}
		for _, test := range tests.ActionTests {
			var object, want map[string]any
			readYAML(t, at+test.InputPath, &object)
			readYAML(t, at+test.ExpectedOutputPath, &want)
			if difference := cmp.Diff(any(want), run(t, read(t, at+test.Action+"/action.lua"), object)); difference != "" {
				t.Errorf("%s %s: -want +got\n%s", kind, test.Action, difference)
			}
		}
		if len(tests.DiscoveryTests) < 2 || len(tests.ActionTests) < 2 {
			t.Errorf("%s has %+v", kind, tests)
		}
	}
}

// TestConfigMapsAreDocumented makes argocd-cm.yaml of the scripts, for an Argo CD without them.
func TestConfigMapsAreDocumented(t *testing.T) {
	t.Parallel()
	data := map[string]string{}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		suffix := ".webhooks.clinikapi.com_" + kind
		data["resource.customizations.health"+suffix] = read(t, folder+kind+"/health.lua")
		scripts, err := filepath.Glob(folder + kind + "/actions/*/action.lua")
		if err != nil || len(scripts) == 0 {
			t.Fatal(scripts, err)
		}
		actions := map[string]any{"discovery.lua": read(t, folder+kind+"/actions/discovery.lua")}
		var definitions []any
		for _, script := range scripts {
			definitions = append(definitions, map[string]any{"name": filepath.Base(filepath.Dir(script)), "action.lua": read(t, script)})
		}
		actions["definitions"] = definitions
		data["resource.customizations.actions"+suffix] = text(t, actions)
	}
	made := text(t, map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": data,
		"metadata": map[string]any{"name": "argocd-cm", "namespace": "argocd", "labels": map[string]any{"app.kubernetes.io/part-of": "argocd"}},
	})
	current(t, "argocd-cm.yaml", "# Generated by make generate. Do not edit it. A patch of Argo CD's own ConfigMap.\n"+made)
	if strings.Count(made, "hs.status") < 4 {
		t.Errorf("the ConfigMap lacks the scripts:\n%s", made)
	}
}
