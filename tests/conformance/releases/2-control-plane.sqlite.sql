BEGIN TRANSACTION;
CREATE TABLE api_keys (
	id VARCHAR(32) NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	digest BLOB NOT NULL, 
	prefix VARCHAR(16) NOT NULL, 
	scopes JSON NOT NULL, 
	created_by VARCHAR(128), 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
INSERT INTO "api_keys" VALUES('id 1','api_keys-1',X'0101010101010101010101010101010101010101010101010101010101010101','prefix 1','["a", "b"]','created_by 1','2026-11-23 19:04:12.123456','2026-11-23 19:04:12.123456',NULL);
INSERT INTO "api_keys" VALUES('id 2','api_keys-2',X'0202020202020202020202020202020202020202020202020202020202020202','prefix 2','["a", "b"]','created_by 2','2026-11-23 19:04:13.123456','2026-11-23 19:04:13.123456','2026-11-23 19:04:13.123456');
CREATE TABLE evaluation_runs (
	id INTEGER NOT NULL, 
	endpoint VARCHAR NOT NULL, 
	evaluator VARCHAR NOT NULL, 
	target VARCHAR, 
	device VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	duration_s DOUBLE, 
	from_version INTEGER, 
	to_version INTEGER, 
	scored INTEGER NOT NULL, 
	unscored INTEGER NOT NULL, 
	unscored_reasons JSON NOT NULL, 
	error VARCHAR, 
	CONSTRAINT pk_evaluation_runs PRIMARY KEY (id)
);
INSERT INTO "evaluation_runs" VALUES(1,'endpoint 1','evaluator 1','target 1','device 1','state 1','2026-11-23 19:04:12.123456','2026-11-23 19:04:12.123456',1.1,1,1,1,1,'{"n": 1, "na\u00efve": null}','error 1');
INSERT INTO "evaluation_runs" VALUES(2,'endpoint 2','evaluator 2','target 2','device 2','state 2','2026-11-23 19:04:13.123456','2026-11-23 19:04:13.123456',2.1,2,2,2,2,'{"n": 2, "na\u00efve": null}','error 2');
CREATE TABLE experiment_analyses (
	id INTEGER NOT NULL, 
	experiment VARCHAR(200) NOT NULL, 
	as_of DATETIME NOT NULL, 
	payload_version INTEGER, 
	scores_version INTEGER, 
	report JSON NOT NULL, 
	CONSTRAINT pk_experiment_analyses PRIMARY KEY (id), 
	CONSTRAINT fk_experiment_analyses_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
INSERT INTO "experiment_analyses" VALUES(1,'tone','2026-11-23 19:04:12.123456',1,1,'{"n": 1, "na\u00efve": null}');
INSERT INTO "experiment_analyses" VALUES(2,'tone','2026-11-23 19:04:13.123456',2,2,'{"n": 2, "na\u00efve": null}');
CREATE TABLE experiment_constants (
	experiment VARCHAR(200) NOT NULL, 
	metric VARCHAR(300) NOT NULL, 
	treatment VARCHAR(200) NOT NULL, 
	kappa DOUBLE NOT NULL, 
	frozen_at DATETIME NOT NULL, 
	CONSTRAINT pk_experiment_constants PRIMARY KEY (experiment, metric, treatment), 
	CONSTRAINT fk_experiment_constants_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
INSERT INTO "experiment_constants" VALUES('tone','metric 1','treatment 1',1.1,'2026-11-23 19:04:12.123456');
INSERT INTO "experiment_constants" VALUES('tone','metric 2','treatment 2',2.1,'2026-11-23 19:04:13.123456');
CREATE TABLE experiment_phases (
	experiment VARCHAR(200) NOT NULL, 
	phase INTEGER NOT NULL, 
	weights JSON NOT NULL, 
	started_at DATETIME NOT NULL, 
	CONSTRAINT pk_experiment_phases PRIMARY KEY (experiment, phase), 
	CONSTRAINT fk_experiment_phases_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
INSERT INTO "experiment_phases" VALUES('tone',1,'{"n": 1, "na\u00efve": null}','2026-11-23 19:04:12.123456');
INSERT INTO "experiment_phases" VALUES('tone',2,'{"n": 2, "na\u00efve": null}','2026-11-23 19:04:13.123456');
CREATE TABLE experiment_running (
	experiment VARCHAR(200) NOT NULL, 
	metric VARCHAR(300) NOT NULL, 
	treatment VARCHAR(200) NOT NULL, 
	p_value DOUBLE NOT NULL, 
	difference DOUBLE NOT NULL, 
	reached_at DATETIME NOT NULL, 
	CONSTRAINT pk_experiment_running PRIMARY KEY (experiment, metric, treatment), 
	CONSTRAINT fk_experiment_running_experiment FOREIGN KEY(experiment) REFERENCES experiments (name)
);
INSERT INTO "experiment_running" VALUES('tone','metric 1','treatment 1',1.1,1.1,'2026-11-23 19:04:12.123456');
INSERT INTO "experiment_running" VALUES('tone','metric 2','treatment 2',2.1,2.1,'2026-11-23 19:04:13.123456');
CREATE TABLE experiments (
	name VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(200) NOT NULL, 
	definition JSON NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	started_at DATETIME NOT NULL, 
	stopped_at DATETIME, 
	CONSTRAINT pk_experiments PRIMARY KEY (name)
);
INSERT INTO "experiments" VALUES('tone','endpoint 1','{"n": 1, "na\u00efve": null}','state 1','2026-11-23 19:04:12.123456','2026-11-23 19:04:12.123456');
CREATE TABLE relabel_cases (
	id INTEGER NOT NULL, 
	endpoint VARCHAR(255) NOT NULL, 
	databricks_request_id VARCHAR(255) NOT NULL, 
	content_hash VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	priority INTEGER NOT NULL, 
	occurrences INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	annotator VARCHAR(200), 
	lease_expires_at DATETIME, 
	served_entity TEXT, 
	variant TEXT, 
	model TEXT, 
	request_time DATETIME NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
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
INSERT INTO "relabel_cases" VALUES(1,'endpoint 1','databricks_request_id 1','content_hash 1','claimed',1,1,1,'annotator 1','2026-11-23 19:04:12.123456','served_entity 1','variant 1','model 1','2026-11-23 19:04:12.123456','2026-11-23 19:04:12.123456','2026-11-23 19:04:12.123456','skip_reason 1','[{"role": "user", "content": "Gr\u00fc\u00dfe \u2013 1 ''quoted''"}]',0,'[{"role": "user", "content": "Gr\u00fc\u00dfe \u2013 1 ''quoted''"}]','[{"role": "user", "content": "Gr\u00fc\u00dfe \u2013 1 ''quoted''"}]','prompt_text 1','response_text 1');
INSERT INTO "relabel_cases" VALUES(2,'endpoint 2','databricks_request_id 2','content_hash 2','labeled',2,2,2,'annotator 2','2026-11-23 19:04:13.123456','served_entity 2','variant 2','model 2','2026-11-23 19:04:13.123456','2026-11-23 19:04:13.123456','2026-11-23 19:04:13.123456','skip_reason 2','[{"role": "user", "content": "Gr\u00fc\u00dfe \u2013 2 ''quoted''"}]',1,'[{"role": "user", "content": "Gr\u00fc\u00dfe \u2013 2 ''quoted''"}]','[{"role": "user", "content": "Gr\u00fc\u00dfe \u2013 2 ''quoted''"}]','prompt_text 2','response_text 2');
CREATE TABLE relabel_history (
	id INTEGER NOT NULL, 
	case_id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	from_state VARCHAR(16), 
	to_state VARCHAR(16) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	detail TEXT, 
	CONSTRAINT pk_relabel_history PRIMARY KEY (id), 
	CONSTRAINT fk_relabel_history_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
INSERT INTO "relabel_history" VALUES(1,1,'2026-11-23 19:04:12.123456','claimed','claimed','actor 1','detail 1');
INSERT INTO "relabel_history" VALUES(2,2,'2026-11-23 19:04:13.123456','labeled','labeled','actor 2','detail 2');
CREATE TABLE relabel_labels (
	id INTEGER NOT NULL, 
	case_id INTEGER NOT NULL, 
	annotator VARCHAR(200) NOT NULL, 
	rating VARCHAR(16) NOT NULL, 
	corrected_answer TEXT, 
	tags JSON NOT NULL, 
	comment TEXT, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_relabel_labels PRIMARY KEY (id), 
	CONSTRAINT uq_relabel_labels_case_id_annotator UNIQUE (case_id, annotator), 
	CONSTRAINT fk_relabel_labels_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
INSERT INTO "relabel_labels" VALUES(1,1,'annotator 1','bad','corrected_answer 1','["a", "b"]','comment 1','2026-11-23 19:04:12.123456');
INSERT INTO "relabel_labels" VALUES(2,2,'annotator 2','good','corrected_answer 2','["a", "b"]','comment 2','2026-11-23 19:04:13.123456');
CREATE TABLE relabel_occurrences (
	endpoint VARCHAR(255) NOT NULL, 
	databricks_request_id VARCHAR(255) NOT NULL, 
	case_id INTEGER NOT NULL, 
	request_time DATETIME NOT NULL, 
	CONSTRAINT pk_relabel_occurrences PRIMARY KEY (endpoint, databricks_request_id), 
	CONSTRAINT fk_relabel_occurrences_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
INSERT INTO "relabel_occurrences" VALUES('endpoint 1','databricks_request_id 1',1,'2026-11-23 19:04:12.123456');
INSERT INTO "relabel_occurrences" VALUES('endpoint 2','databricks_request_id 2',2,'2026-11-23 19:04:13.123456');
CREATE TABLE relabel_reasons (
	id INTEGER NOT NULL, 
	case_id INTEGER NOT NULL, 
	evaluator VARCHAR(255) NOT NULL, 
	target VARCHAR(32) NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	threshold FLOAT NOT NULL, 
	score FLOAT NOT NULL, 
	priority INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_relabel_reasons PRIMARY KEY (id), 
	CONSTRAINT uq_relabel_reasons_case_id_evaluator_target_direction UNIQUE (case_id, evaluator, target, direction), 
	CONSTRAINT fk_relabel_reasons_case_id FOREIGN KEY(case_id) REFERENCES relabel_cases (id)
);
INSERT INTO "relabel_reasons" VALUES(1,1,'evaluator 1','target 1','directio',1.1,1.1,1,'2026-11-23 19:04:12.123456');
INSERT INTO "relabel_reasons" VALUES(2,2,'evaluator 2','target 2','directio',2.1,2.1,2,'2026-11-23 19:04:13.123456');
CREATE TABLE relabel_selections (
	endpoint VARCHAR(255) NOT NULL, 
	scores_version BIGINT, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_relabel_selections PRIMARY KEY (endpoint)
);
INSERT INTO "relabel_selections" VALUES('endpoint 1',1,'2026-11-23 19:04:12.123456');
INSERT INTO "relabel_selections" VALUES('endpoint 2',2,'2026-11-23 19:04:13.123456');
CREATE TABLE serving_endpoint_versions (
	generation INTEGER NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	config_version INTEGER NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	changed_by VARCHAR(255) NOT NULL, 
	changed_at DATETIME NOT NULL, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_serving_endpoint_versions PRIMARY KEY (generation, name)
);
INSERT INTO "serving_endpoint_versions" VALUES(1,'serving_endpoint_versions-1',1,'action 1','changed_by 1','2026-11-23 19:04:12.123456','{"n": 1, "na\u00efve": null}');
INSERT INTO "serving_endpoint_versions" VALUES(2,'serving_endpoint_versions-2',2,'action 2','changed_by 2','2026-11-23 19:04:13.123456','{"n": 2, "na\u00efve": null}');
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
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	deleted_at DATETIME, 
	table_catalog VARCHAR(63) NOT NULL, 
	table_schema VARCHAR(63) NOT NULL, 
	table_prefix VARCHAR(63) NOT NULL, 
	CONSTRAINT pk_serving_endpoints PRIMARY KEY (name), 
	CONSTRAINT uq_serving_endpoints_table_catalog_table_schema_table_prefix UNIQUE (table_catalog, table_schema, table_prefix), 
	CONSTRAINT uq_serving_endpoints_id UNIQUE (id)
);
INSERT INTO "serving_endpoints" VALUES('serving_endpoints-1','id 1','{"n": 1, "na\u00efve": null}','{"n": 1, "na\u00efve": null}',1,1,1,1,'source 1','file_digest 1','description 1','creator 1','2026-11-23 19:04:12.123456','2026-11-23 19:04:12.123456','2026-11-23 19:04:12.123456','table_catalog 1','table_schema 1','table_prefix 1');
INSERT INTO "serving_endpoints" VALUES('serving_endpoints-2','id 2','{"n": 2, "na\u00efve": null}','{"n": 2, "na\u00efve": null}',2,2,2,2,'source 2','file_digest 2','description 2','creator 2','2026-11-23 19:04:13.123456','2026-11-23 19:04:13.123456','2026-11-23 19:04:13.123456','table_catalog 2','table_schema 2','table_prefix 2');
CREATE TABLE serving_generation (
	id INTEGER NOT NULL, 
	value INTEGER NOT NULL, 
	CONSTRAINT pk_serving_generation PRIMARY KEY (id)
);
INSERT INTO "serving_generation" VALUES(1,1);
CREATE TABLE serving_proxy_workers (
	worker VARCHAR(255) NOT NULL, 
	generation INTEGER NOT NULL, 
	failing JSON NOT NULL, 
	seen_at DATETIME NOT NULL, 
	CONSTRAINT pk_serving_proxy_workers PRIMARY KEY (worker)
);
INSERT INTO "serving_proxy_workers" VALUES('worker 1',1,'{"n": 1, "na\u00efve": null}','2026-11-23 19:04:12.123456');
INSERT INTO "serving_proxy_workers" VALUES('worker 2',2,'{"n": 2, "na\u00efve": null}','2026-11-23 19:04:13.123456');
CREATE INDEX ix_relabel_cases_holder ON relabel_cases (annotator, state);
CREATE INDEX ix_relabel_cases_endpoint_queue ON relabel_cases (endpoint, state, priority DESC, id);
CREATE INDEX ix_relabel_cases_order ON relabel_cases (priority DESC, id);
CREATE INDEX ix_relabel_cases_queue ON relabel_cases (state, priority DESC, id);
CREATE INDEX ix_relabel_cases_lease ON relabel_cases (state, lease_expires_at);
CREATE INDEX ix_experiments_endpoint ON experiments (endpoint);
CREATE INDEX ix_evaluation_runs_endpoint_evaluator ON evaluation_runs (endpoint, evaluator, started_at);
CREATE INDEX ix_serving_endpoint_versions_name ON serving_endpoint_versions (name, generation);
CREATE UNIQUE INDEX ix_api_keys_live_name ON api_keys (name) WHERE revoked_at IS NULL;
CREATE INDEX ix_relabel_occurrences_case_id ON relabel_occurrences (case_id);
CREATE INDEX ix_relabel_history_case_id ON relabel_history (case_id);
CREATE INDEX experiment_analyses_latest ON experiment_analyses (experiment, id);
COMMIT;
