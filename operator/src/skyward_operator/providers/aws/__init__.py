"""Amazon EC2 as a provider, by RunInstances for one type in one zone.

account      whose credentials, from a Secret or of the operator itself; never both
clients      calls in threads, with errors sorted by what the caller should do next
meanings     what AWS's error codes mean
parameters   `candidates[].parameters`
hardware     what an instance type has
places       regions and zones
market       prices
offers       what is sold that fits
images       AMIs
network      subnets, and the address that SSH comes from
side         key pairs and security groups of pools
order        the request for a machine
instances    machines as EC2 shows them
hostkeys     SSH host keys, read from the console
provider     all of it together
"""
