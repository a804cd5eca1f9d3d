/** TCP congestion control of the sockets that agent and workers make. */

/**
 * Between an application and its proxy lies no network, so nothing has to be paced: a host's BBR would set a timer for
 * each segment (decision 16). Every kernel has this one.
 */
export const LOCAL_CONGESTION_CONTROL = "reno";
