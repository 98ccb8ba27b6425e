CREATE TABLE relabel_cases (
	id BIGSERIAL NOT NULL,
	endpoint VARCHAR(255) NOT NULL,
	databricks_request_id VARCHAR(255) NOT NULL,
	content_hash VARCHAR(64) NOT NULL,
	state VARCHAR(16) NOT NULL,
	priority INTEGER NOT NULL,
	occurrences INTEGER NOT NULL,
	version INTEGER NOT NULL,
	annotator VARCHAR(200),
	lease_expires_at TIMESTAMP WITH TIME ZONE,
	served_entity TEXT,
	variant TEXT,
	model TEXT,
	request_time TIMESTAMP WITH TIME ZONE NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE NOT NULL,
	updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
	skip_reason TEXT,
	messages JSON NOT NULL,
	answered BOOLEAN NOT NULL,
	tools JSON,
	scores JSON NOT NULL,
	prompt_text TEXT,
	response_text TEXT,
	CONSTRAINT pk_relabel_cases PRIMARY KEY (id),
	CONSTRAINT uq_relabel_cases_endpoint_databricks_request_id UNIQUE (endpoint, databricks_request_id),
	CONSTRAINT uq_relabel_cases_endpoint_content_hash UNIQUE (endpoint, content_hash)
);
CREATE INDEX ix_relabel_cases_holder ON relabel_cases (annotator, state);
CREATE INDEX ix_relabel_cases_endpoint_queue ON relabel_cases (endpoint, state, priority DESC, id);
CREATE INDEX ix_relabel_cases_order ON relabel_cases (priority DESC, id);
CREATE INDEX ix_relabel_cases_queue ON relabel_cases (state, priority DESC, id);
CREATE INDEX ix_relabel_cases_lease ON relabel_cases (state, lease_expires_at);
CREATE TABLE relabel_selections (
	endpoint VARCHAR(255) NOT NULL,
	scores_version BIGINT,
	updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_relabel_selections PRIMARY KEY (endpoint)
);
CREATE TABLE experiments (
	name VARCHAR(200) NOT NULL,
	endpoint VARCHAR(200) NOT NULL,
	definition JSON NOT NULL,
	state VARCHAR(20) NOT NULL,
	started_at TIMESTAMP WITH TIME ZONE NOT NULL,
	stopped_at TIMESTAMP WITH TIME ZONE,
	CONSTRAINT pk_experiments PRIMARY KEY (name)
);
CREATE INDEX ix_experiments_endpoint ON experiments (endpoint);
CREATE TABLE evaluation_runs (
	id SERIAL NOT NULL,
	endpoint VARCHAR NOT NULL,
	evaluator VARCHAR NOT NULL,
	target VARCHAR,
	device VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	started_at TIMESTAMP WITH TIME ZONE NOT NULL,
	finished_at TIMESTAMP WITH TIME ZONE,
	duration_s DOUBLE PRECISION,
	from_version INTEGER,
	to_version INTEGER,
	scored INTEGER NOT NULL,
	unscored INTEGER NOT NULL,
	unscored_reasons JSON NOT NULL,
	error VARCHAR,
	CONSTRAINT pk_evaluation_runs PRIMARY KEY (id)
);
CREATE INDEX ix_evaluation_runs_endpoint_evaluator ON evaluation_runs (endpoint, evaluator, started_at);
CREATE TABLE serving_generation (
	id INTEGER NOT NULL,
	value INTEGER NOT NULL,
	CONSTRAINT pk_serving_generation PRIMARY KEY (id)
);
CREATE TABLE serving_endpoints (
	name VARCHAR(63) NOT NULL,
	id VARCHAR(32) NOT NULL,
	settings JSON NOT NULL,
	shown JSON NOT NULL,
	config_version INTEGER NOT NULL,
	generation INTEGER NOT NULL,
	config_generation INTEGER NOT NULL,
	created_generation INTEGER NOT NULL,
	source VARCHAR(8) NOT NULL,
	file_digest VARCHAR(64),
	description TEXT,
	creator VARCHAR(255) NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE NOT NULL,
	updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
	deleted_at TIMESTAMP WITH TIME ZONE,
	table_catalog VARCHAR(63) NOT NULL,
	table_schema VARCHAR(63) NOT NULL,
	table_prefix VARCHAR(63) NOT NULL,
	CONSTRAINT pk_serving_endpoints PRIMARY KEY (name),
	CONSTRAINT uq_serving_endpoints_table_catalog_table_schema_table_prefix UNIQUE (table_catalog, table_schema, table_prefix),
	CONSTRAINT uq_serving_endpoints_id UNIQUE (id)
);
CREATE TABLE serving_endpoint_versions (
	generation INTEGER NOT NULL,
	name VARCHAR(63) NOT NULL,
	config_version INTEGER NOT NULL,
	action VARCHAR(16) NOT NULL,
	changed_by VARCHAR(255) NOT NULL,
	changed_at TIMESTAMP WITH TIME ZONE NOT NULL,
	settings JSON NOT NULL,
	CONSTRAINT pk_serving_endpoint_versions PRIMARY KEY (generation, name)
);
CREATE INDEX ix_serving_endpoint_versions_name ON serving_endpoint_versions (name, generation);
CREATE TABLE serving_proxy_workers (
	worker VARCHAR(255) NOT NULL,
	generation INTEGER NOT NULL,
	failing JSON NOT NULL,
	seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_serving_proxy_workers PRIMARY KEY (worker)
);
CREATE TABLE api_keys (
	id VARCHAR(32) NOT NULL,
	name VARCHAR(128) NOT NULL,
	digest BYTEA NOT NULL,
	prefix VARCHAR(16) NOT NULL,
	scopes JSON NOT NULL,
	created_by VARCHAR(128),
	created_at TIMESTAMP WITH TIME ZONE NOT NULL,
	expires_at TIMESTAMP WITH TIME ZONE,
	revoked_at TIMESTAMP WITH TIME ZONE,
	CONSTRAINT pk_api_keys PRIMARY KEY (id),
	CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
CREATE UNIQUE INDEX ix_api_keys_live_name ON api_keys (name) WHERE revoked_at IS NULL;
CREATE TABLE relabel_occurrences (
	endpoint VARCHAR(255) NOT NULL,
	databricks_request_id VARCHAR(255) NOT NULL,
	case_id BIGINT NOT NULL,
	request_time TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_relabel_occurrences PRIMARY KEY (endpoint, databricks_request_id),
	CONSTRAINT fk_relabel_occurrences_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
CREATE INDEX ix_relabel_occurrences_case_id ON relabel_occurrences (case_id);
CREATE TABLE relabel_reasons (
	id BIGSERIAL NOT NULL,
	case_id BIGINT NOT NULL,
	evaluator VARCHAR(255) NOT NULL,
	target VARCHAR(32) NOT NULL,
	direction VARCHAR(8) NOT NULL,
	threshold FLOAT NOT NULL,
	score FLOAT NOT NULL,
	priority INTEGER NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_relabel_reasons PRIMARY KEY (id),
	CONSTRAINT uq_relabel_reasons_case_id_evaluator_target_direction UNIQUE (case_id, evaluator, target, direction),
	CONSTRAINT fk_relabel_reasons_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
CREATE TABLE relabel_labels (
	id BIGSERIAL NOT NULL,
	case_id BIGINT NOT NULL,
	annotator VARCHAR(200) NOT NULL,
	rating VARCHAR(16) NOT NULL,
	corrected_answer TEXT,
	tags JSON NOT NULL,
	comment TEXT,
	created_at TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_relabel_labels PRIMARY KEY (id),
	CONSTRAINT uq_relabel_labels_case_id_annotator UNIQUE (case_id, annotator),
	CONSTRAINT fk_relabel_labels_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
CREATE TABLE relabel_history (
	id BIGSERIAL NOT NULL,
	case_id BIGINT NOT NULL,
	at TIMESTAMP WITH TIME ZONE NOT NULL,
	from_state VARCHAR(16),
	to_state VARCHAR(16) NOT NULL,
	actor VARCHAR(200) NOT NULL,
	detail TEXT,
	CONSTRAINT pk_relabel_history PRIMARY KEY (id),
	CONSTRAINT fk_relabel_history_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
CREATE INDEX ix_relabel_history_case_id ON relabel_history (case_id);
CREATE TABLE experiment_phases (
	experiment VARCHAR(200) NOT NULL,
	phase INTEGER NOT NULL,
	weights JSON NOT NULL,
	started_at TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_experiment_phases PRIMARY KEY (experiment, phase),
	CONSTRAINT fk_experiment_phases_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
CREATE TABLE experiment_constants (
	experiment VARCHAR(200) NOT NULL,
	metric VARCHAR(300) NOT NULL,
	treatment VARCHAR(200) NOT NULL,
	kappa DOUBLE PRECISION NOT NULL,
	frozen_at TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_experiment_constants PRIMARY KEY (experiment, metric, treatment),
	CONSTRAINT fk_experiment_constants_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
CREATE TABLE experiment_running (
	experiment VARCHAR(200) NOT NULL,
	metric VARCHAR(300) NOT NULL,
	treatment VARCHAR(200) NOT NULL,
	p_value DOUBLE PRECISION NOT NULL,
	difference DOUBLE PRECISION NOT NULL,
	reached_at TIMESTAMP WITH TIME ZONE NOT NULL,
	CONSTRAINT pk_experiment_running PRIMARY KEY (experiment, metric, treatment),
	CONSTRAINT fk_experiment_running_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
CREATE TABLE experiment_analyses (
	id SERIAL NOT NULL,
	experiment VARCHAR(200) NOT NULL,
	as_of TIMESTAMP WITH TIME ZONE NOT NULL,
	payload_version INTEGER,
	scores_version INTEGER,
	report JSON NOT NULL,
	CONSTRAINT pk_experiment_analyses PRIMARY KEY (id),
	CONSTRAINT fk_experiment_analyses_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
CREATE INDEX experiment_analyses_latest ON experiment_analyses (experiment, id);
INSERT INTO api_keys (id, name, digest, prefix, scopes, created_by, created_at, expires_at, revoked_at) VALUES ('id 1'::VARCHAR, 'api_keys-1'::VARCHAR, '\x0101010101010101010101010101010101010101010101010101010101010101'::bytea, 'prefix 1'::VARCHAR, '["a", "b"]'::json::JSON, 'created_by 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, NULL::TIMESTAMP WITH TIME ZONE);
INSERT INTO api_keys (id, name, digest, prefix, scopes, created_by, created_at, expires_at, revoked_at) VALUES ('id 2'::VARCHAR, 'api_keys-2'::VARCHAR, '\x0202020202020202020202020202020202020202020202020202020202020202'::bytea, 'prefix 2'::VARCHAR, '["a", "b"]'::json::JSON, 'created_by 2'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO evaluation_runs (id, endpoint, evaluator, target, device, state, started_at, finished_at, duration_s, from_version, to_version, scored, unscored, unscored_reasons, error) VALUES (1::INTEGER, 'endpoint 1'::VARCHAR, 'evaluator 1'::VARCHAR, 'target 1'::VARCHAR, 'device 1'::VARCHAR, 'state 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 1.1, 1::INTEGER, 1::INTEGER, 1::INTEGER, 1::INTEGER,  E'{"n": 1, "na\\u00efve": null}'::json::JSON, 'error 1'::VARCHAR);
INSERT INTO evaluation_runs (id, endpoint, evaluator, target, device, state, started_at, finished_at, duration_s, from_version, to_version, scored, unscored, unscored_reasons, error) VALUES (2::INTEGER, 'endpoint 2'::VARCHAR, 'evaluator 2'::VARCHAR, 'target 2'::VARCHAR, 'device 2'::VARCHAR, 'state 2'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 2.1, 2::INTEGER, 2::INTEGER, 2::INTEGER, 2::INTEGER,  E'{"n": 2, "na\\u00efve": null}'::json::JSON, 'error 2'::VARCHAR);
INSERT INTO experiments (name, endpoint, definition, state, started_at, stopped_at) VALUES ('tone'::VARCHAR, 'endpoint 1'::VARCHAR,  E'{"n": 1, "na\\u00efve": null}'::json::JSON, 'state 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_cases (id, endpoint, databricks_request_id, content_hash, state, priority, occurrences, version, annotator, lease_expires_at, served_entity, variant, model, request_time, created_at, updated_at, skip_reason, messages, answered, tools, scores, prompt_text, response_text) VALUES (1::BIGINT, 'endpoint 1'::VARCHAR, 'databricks_request_id 1'::VARCHAR, 'content_hash 1'::VARCHAR, 'claimed', 1::INTEGER, 1::INTEGER, 1::INTEGER, 'annotator 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'served_entity 1'::VARCHAR, 'variant 1'::VARCHAR, 'model 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'skip_reason 1'::VARCHAR,  E'[{"role": "user", "content": "Gr\\u00fc\\u00dfe \\u2013 1 ''quoted''"}]'::json::JSON, false,  E'[{"role": "user", "content": "Gr\\u00fc\\u00dfe \\u2013 1 ''quoted''"}]'::json::JSON,  E'[{"role": "user", "content": "Gr\\u00fc\\u00dfe \\u2013 1 ''quoted''"}]'::json::JSON, 'prompt_text 1'::VARCHAR, 'response_text 1'::VARCHAR);
INSERT INTO relabel_cases (id, endpoint, databricks_request_id, content_hash, state, priority, occurrences, version, annotator, lease_expires_at, served_entity, variant, model, request_time, created_at, updated_at, skip_reason, messages, answered, tools, scores, prompt_text, response_text) VALUES (2::BIGINT, 'endpoint 2'::VARCHAR, 'databricks_request_id 2'::VARCHAR, 'content_hash 2'::VARCHAR, 'labeled', 2::INTEGER, 2::INTEGER, 2::INTEGER, 'annotator 2'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'served_entity 2'::VARCHAR, 'variant 2'::VARCHAR, 'model 2'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'skip_reason 2'::VARCHAR,  E'[{"role": "user", "content": "Gr\\u00fc\\u00dfe \\u2013 2 ''quoted''"}]'::json::JSON, true,  E'[{"role": "user", "content": "Gr\\u00fc\\u00dfe \\u2013 2 ''quoted''"}]'::json::JSON,  E'[{"role": "user", "content": "Gr\\u00fc\\u00dfe \\u2013 2 ''quoted''"}]'::json::JSON, 'prompt_text 2'::VARCHAR, 'response_text 2'::VARCHAR);
INSERT INTO relabel_selections (endpoint, scores_version, updated_at) VALUES ('endpoint 1'::VARCHAR, 1::BIGINT, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_selections (endpoint, scores_version, updated_at) VALUES ('endpoint 2'::VARCHAR, 2::BIGINT, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO serving_endpoint_versions (generation, name, config_version, action, changed_by, changed_at, settings) VALUES (1::INTEGER, 'serving_endpoint_versions-1'::VARCHAR, 1::INTEGER, 'action 1'::VARCHAR, 'changed_by 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE,  E'{"n": 1, "na\\u00efve": null}'::json::JSON);
INSERT INTO serving_endpoint_versions (generation, name, config_version, action, changed_by, changed_at, settings) VALUES (2::INTEGER, 'serving_endpoint_versions-2'::VARCHAR, 2::INTEGER, 'action 2'::VARCHAR, 'changed_by 2'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE,  E'{"n": 2, "na\\u00efve": null}'::json::JSON);
INSERT INTO serving_endpoints (name, id, settings, shown, config_version, generation, config_generation, created_generation, source, file_digest, description, creator, created_at, updated_at, deleted_at, table_catalog, table_schema, table_prefix) VALUES ('serving_endpoints-1'::VARCHAR, 'id 1'::VARCHAR,  E'{"n": 1, "na\\u00efve": null}'::json::JSON,  E'{"n": 1, "na\\u00efve": null}'::json::JSON, 1::INTEGER, 1::INTEGER, 1::INTEGER, 1::INTEGER, 'source 1'::VARCHAR, 'file_digest 1'::VARCHAR, 'description 1'::VARCHAR, 'creator 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'table_catalog 1'::VARCHAR, 'table_schema 1'::VARCHAR, 'table_prefix 1'::VARCHAR);
INSERT INTO serving_endpoints (name, id, settings, shown, config_version, generation, config_generation, created_generation, source, file_digest, description, creator, created_at, updated_at, deleted_at, table_catalog, table_schema, table_prefix) VALUES ('serving_endpoints-2'::VARCHAR, 'id 2'::VARCHAR,  E'{"n": 2, "na\\u00efve": null}'::json::JSON,  E'{"n": 2, "na\\u00efve": null}'::json::JSON, 2::INTEGER, 2::INTEGER, 2::INTEGER, 2::INTEGER, 'source 2'::VARCHAR, 'file_digest 2'::VARCHAR, 'description 2'::VARCHAR, 'creator 2'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'table_catalog 2'::VARCHAR, 'table_schema 2'::VARCHAR, 'table_prefix 2'::VARCHAR);
INSERT INTO serving_generation (id, value) VALUES (1::INTEGER, 1::INTEGER);
INSERT INTO serving_proxy_workers (worker, generation, failing, seen_at) VALUES ('worker 1'::VARCHAR, 1::INTEGER,  E'{"n": 1, "na\\u00efve": null}'::json::JSON, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO serving_proxy_workers (worker, generation, failing, seen_at) VALUES ('worker 2'::VARCHAR, 2::INTEGER,  E'{"n": 2, "na\\u00efve": null}'::json::JSON, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO experiment_analyses (id, experiment, as_of, payload_version, scores_version, report) VALUES (1::INTEGER, 'tone'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 1::INTEGER, 1::INTEGER,  E'{"n": 1, "na\\u00efve": null}'::json::JSON);
INSERT INTO experiment_analyses (id, experiment, as_of, payload_version, scores_version, report) VALUES (2::INTEGER, 'tone'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 2::INTEGER, 2::INTEGER,  E'{"n": 2, "na\\u00efve": null}'::json::JSON);
INSERT INTO experiment_constants (experiment, metric, treatment, kappa, frozen_at) VALUES ('tone'::VARCHAR, 'metric 1'::VARCHAR, 'treatment 1'::VARCHAR, 1.1, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO experiment_constants (experiment, metric, treatment, kappa, frozen_at) VALUES ('tone'::VARCHAR, 'metric 2'::VARCHAR, 'treatment 2'::VARCHAR, 2.1, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO experiment_phases (experiment, phase, weights, started_at) VALUES ('tone'::VARCHAR, 1::INTEGER,  E'{"n": 1, "na\\u00efve": null}'::json::JSON, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO experiment_phases (experiment, phase, weights, started_at) VALUES ('tone'::VARCHAR, 2::INTEGER,  E'{"n": 2, "na\\u00efve": null}'::json::JSON, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO experiment_running (experiment, metric, treatment, p_value, difference, reached_at) VALUES ('tone'::VARCHAR, 'metric 1'::VARCHAR, 'treatment 1'::VARCHAR, 1.1, 1.1, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO experiment_running (experiment, metric, treatment, p_value, difference, reached_at) VALUES ('tone'::VARCHAR, 'metric 2'::VARCHAR, 'treatment 2'::VARCHAR, 2.1, 2.1, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_history (id, case_id, at, from_state, to_state, actor, detail) VALUES (1::BIGINT, 1::BIGINT, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'claimed', 'claimed', 'actor 1'::VARCHAR, 'detail 1'::VARCHAR);
INSERT INTO relabel_history (id, case_id, at, from_state, to_state, actor, detail) VALUES (2::BIGINT, 2::BIGINT, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'labeled', 'labeled', 'actor 2'::VARCHAR, 'detail 2'::VARCHAR);
INSERT INTO relabel_labels (id, case_id, annotator, rating, corrected_answer, tags, comment, created_at) VALUES (1::BIGINT, 1::BIGINT, 'annotator 1'::VARCHAR, 'bad', 'corrected_answer 1'::VARCHAR, '["a", "b"]'::json::JSON, 'comment 1'::VARCHAR, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_labels (id, case_id, annotator, rating, corrected_answer, tags, comment, created_at) VALUES (2::BIGINT, 2::BIGINT, 'annotator 2'::VARCHAR, 'good', 'corrected_answer 2'::VARCHAR, '["a", "b"]'::json::JSON, 'comment 2'::VARCHAR, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_occurrences (endpoint, databricks_request_id, case_id, request_time) VALUES ('endpoint 1'::VARCHAR, 'databricks_request_id 1'::VARCHAR, 1::BIGINT, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_occurrences (endpoint, databricks_request_id, case_id, request_time) VALUES ('endpoint 2'::VARCHAR, 'databricks_request_id 2'::VARCHAR, 2::BIGINT, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_reasons (id, case_id, evaluator, target, direction, threshold, score, priority, created_at) VALUES (1::BIGINT, 1::BIGINT, 'evaluator 1'::VARCHAR, 'target 1'::VARCHAR, 'directio'::VARCHAR, 1.1, 1.1, 1::INTEGER, '2026-11-23 19:04:12.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
INSERT INTO relabel_reasons (id, case_id, evaluator, target, direction, threshold, score, priority, created_at) VALUES (2::BIGINT, 2::BIGINT, 'evaluator 2'::VARCHAR, 'target 2'::VARCHAR, 'directio'::VARCHAR, 2.1, 2.1, 2::INTEGER, '2026-11-23 19:04:13.123456+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE);
select setval('public.evaluation_runs_id_seq',(select max(id) from evaluation_runs));
select setval('public.relabel_cases_id_seq',(select max(id) from relabel_cases));
select setval('public.experiment_analyses_id_seq',(select max(id) from experiment_analyses));
select setval('public.relabel_history_id_seq',(select max(id) from relabel_history));
select setval('public.relabel_labels_id_seq',(select max(id) from relabel_labels));
select setval('public.relabel_reasons_id_seq',(select max(id) from relabel_reasons));
