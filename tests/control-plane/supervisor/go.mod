module ssm-operator.dev/control-plane/supervisor

go 1.26.0
