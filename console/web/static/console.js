// What pages do beside links and forms. All of it is a convenience: each flow works without.
(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.split("; ").includes("eventflow-zone=" + zone)) {
    document.cookie = "eventflow-zone=" + zone + "; path=/; SameSite=Strict; max-age=31536000";
  }
  document.addEventListener("change", function (event) {
    if (event.target.hasAttribute("data-submit") && event.target.form) event.target.form.requestSubmit();
  });
  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy]");
    if (!button) return;
    var text = document.querySelector(button.getAttribute("data-copy"));
    navigator.clipboard.writeText(text.textContent).then(function () {
      button.textContent = "Copied";
    });
  });
  var next = document.querySelector("form[data-continue]");
  if (next) setTimeout(function () { next.requestSubmit(); }, 300);
})();
