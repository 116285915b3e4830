"""What an agent acts in: environments as pure functions. Their names are among the datasets (`jaxdl.data.DATASETS`)."""
