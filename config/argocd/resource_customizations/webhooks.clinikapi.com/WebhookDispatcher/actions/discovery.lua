local suspended = obj.spec ~= nil and obj.spec.replicas == 0
return {
  ["suspend"] = {["disabled"] = suspended},
  ["resume"] = {["disabled"] = not suspended},
}
