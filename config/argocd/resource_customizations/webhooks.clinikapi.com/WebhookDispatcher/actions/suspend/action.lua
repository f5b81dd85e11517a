-- Events are refused, and what is stored waits.
if obj.spec == nil then
  obj.spec = {}
end
obj.spec.replicas = 0
return obj
