// Package references finds the fields of a subscription's spec that name a Secret, so that whatever has to look at each of
// them can be held to it: a field that is added to the API fails the tests of those who forgot it.
package references

import (
	"reflect"
	"strings"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// Secrets returns, by the path of each field that names a Secret, such as auth.basic.secretRef, a spec in which this
// field alone is set, to the given name.
func Secrets(name string) map[string]v1alpha1.WebhookSubscriptionSpec {
	found := make(map[string]v1alpha1.WebhookSubscriptionSpec)
	for _, path := range paths(reflect.TypeFor[v1alpha1.WebhookSubscriptionSpec](), nil) {
		var spec v1alpha1.WebhookSubscriptionSpec
		field := reflect.ValueOf(&spec).Elem()
		var text []string
		for _, i := range path {
			json, _, _ := strings.Cut(field.Type().Field(i).Tag.Get("json"), ",")
			text = append(text, json)
			field = made(field.Field(i))
		}
		field.FieldByName("Name").SetString(name)
		found[strings.Join(text, ".")] = spec
	}
	return found
}

// paths are the ways, by the numbers of fields, from a struct to references of Secrets.
func paths(in reflect.Type, before []int) (found [][]int) {
	for i := range in.NumField() {
		kind := in.Field(i).Type
		for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
			kind = kind.Elem()
		}
		path := append(append([]int(nil), before...), i)
		switch {
		case kind == reflect.TypeFor[v1alpha1.SecretKeyReference](), kind == reflect.TypeFor[v1alpha1.SecretReference]():
			found = append(found, path)
		case kind.Kind() == reflect.Struct && strings.HasSuffix(kind.PkgPath(), "/api/v1alpha1"):
			found = append(found, paths(kind, path)...)
		}
	}
	return found
}

// made is what a field holds once it holds something: of a list, its only element.
func made(field reflect.Value) reflect.Value {
	switch field.Kind() {
	case reflect.Pointer:
		field.Set(reflect.New(field.Type().Elem()))
		return made(field.Elem())
	case reflect.Slice:
		field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		return made(field.Index(0))
	default:
		return field
	}
}
