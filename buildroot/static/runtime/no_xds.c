// SPDX-License-Identifier: Apache-2.0
/* Stands in for gRPC's xDS, which is not compiled in.
 *
 * grpc.py renames what the Python module calls to the no_xds_ functions.  The mangled names are what
 * two filters refer to; only an xDS configuration could make them run.
 */
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>

grpc_slice no_xds_grpc_dump_xds_configs(void)
{
	return grpc_empty_slice();
}

grpc_server_config_fetcher *
no_xds_grpc_server_config_fetcher_xds_create(grpc_server_xds_status_notifier notifier,
					     const grpc_channel_args *args)
{
	(void)notifier, (void)args;
	return NULL;
}

grpc_channel_credentials *
no_xds_grpc_xds_credentials_create(grpc_channel_credentials *fallback)
{
	(void)fallback;
	return NULL;
}

grpc_server_credentials *
no_xds_grpc_xds_server_credentials_create(grpc_server_credentials *fallback)
{
	(void)fallback;
	return NULL;
}

#define NEVER(name) \
	void name(void) \
	{ \
		__builtin_trap(); \
	}

NEVER(_ZN9grpc_core25ParseXdsHeaderValueOptionEPK38envoy_config_core_v3_HeaderValueOptionPNS_16ValidationErrorsE)
NEVER(_ZN9grpc_core30ApplyXdsHeaderMutationsRemovalENSt3__117basic_string_viewIcNS0_11char_traitsIcEEEEPKNS_19HeaderMutationRulesER19grpc_metadata_batch)
NEVER(_ZN9grpc_core30XdsStreamingCallPromiseWrapper13SendHalfCloseEv)
NEVER(_ZN9grpc_core30XdsStreamingCallPromiseWrapper15PollPullMessageEv)
NEVER(_ZN9grpc_core30XdsStreamingCallPromiseWrapper15PollPushMessageEv)
NEVER(_ZN9grpc_core30XdsStreamingCallPromiseWrapper30PollPullServerTrailingMetadataEv)
NEVER(_ZN9grpc_core30XdsStreamingCallPromiseWrapperC1ERNS_19XdsTransportFactory12XdsTransportEPKcNS2_11CallOptionsE)
NEVER(_ZN9grpc_core31ApplyXdsHeaderMutationsAdditionERKNS_20XdsHeaderValueOptionEPKNS_19HeaderMutationRulesER19grpc_metadata_batch)
NEVER(_ZNK9grpc_core14XdsMetadataMap4FindENSt3__117basic_string_viewIcNS1_11char_traitsIcEEEE)
