# What a member of the cluster "default" needs in Consul, each rule of it:
#   consul acl policy create -name carillon-member -rules @consul-member.hcl

# Its own name and address.
agent_prefix "" {
  policy = "read"
}

# Its session ends when it does. Name the nodes of the members instead, if they are few.
session_prefix "" {
  policy = "write"
}

# Where members put down who they are, and with store.driver: raft who votes; cluster.name stands at the end.
key_prefix "carillon/default/" {
  policy = "write"
}

# consul.register_as, with its check.
service "carillon" {
  policy = "write"
}

# Callees, whose addresses are their nodes'. Name the services and nodes instead, if they are few.
service_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
