// Package browser tests the Webhooks panel in Chromium, and makes the pictures of docs/images/console. It is a module of its own,
// so that the product does not link chromedp.
//
// make console-test runs it: hack/browser/test installs chromium and axe-core, and starts a control plane. The tests need chromium,
// the binary in $EVENTFLOW, axe.min.js in $AXE, and a running Event Flow by $PANEL_NAMESPACE and $PANEL_FLAGS; without, they are
// skipped.
package browser
