package view

import (
	"slices"
	"strings"

	"github.com/clinikapi/eventflow/console/deliveries"
)

func lower(text string) string { return strings.ToLower(text) }

func newestFirst(attempts []deliveries.Attempt) []deliveries.Attempt {
	sorted := slices.Clone(attempts)
	slices.SortFunc(sorted, func(a, b deliveries.Attempt) int { return b.Number - a.Number })
	return sorted
}
