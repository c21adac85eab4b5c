# What a client (agent.role: client) needs in Consul, each rule of it:
#   consul acl policy create -name carillon-client -rules @consul-client.hcl

# Who the members are: consul.register_as, and the nodes that they are on.
service "carillon" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}

# Its application, if app.register is set.
service "billing" {
  policy = "write"
}
